//! Takes the keys of a TOML table one by one. What is missing, of another type, or left over is refused by its full
//! name, so that nothing is ever filled in or ignored.

use toml::{Table, Value};

use super::error::{PolicyError, PolicyProblem};

/// A table of the policy whose keys are being taken.
pub(super) struct Fields {
    path: String,
    table: Table,
}

/// A value and the full name of its key.
pub(super) struct Field<T> {
    pub(super) key: String,
    pub(super) value: T,
}

impl<T> Field<T> {
    /// A refusal of this value.
    pub(super) fn refuse(&self, problem: PolicyProblem) -> PolicyError {
        PolicyError { key: self.key.clone(), problem }
    }
}

impl Fields {
    pub(super) fn root(text: &str) -> Result<Self, PolicyError> {
        let table = text.parse::<Table>().map_err(|error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or("").matches('\n').count() + 1);
            let problem = PolicyProblem::NotToml { line, message: error.message().to_owned() };
            PolicyError { key: String::new(), problem }
        })?;
        Ok(Self { path: String::new(), table })
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Field<String>, PolicyError> {
        self.take(key, "a text in quotes", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// Whether the key is there and was not taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// An integer from 0 up.
    pub(super) fn count(&mut self, key: &str) -> Result<Field<u64>, PolicyError> {
        self.take(key, "an integer from 0 up", |value| value.as_integer().and_then(|integer| integer.try_into().ok()))
    }

    /// An integer that may be left out.
    pub(super) fn count_if_any(&mut self, key: &str) -> Result<Option<Field<u64>>, PolicyError> {
        self.has(key).then(|| self.count(key)).transpose()
    }

    pub(super) fn yes_or_no(&mut self, key: &str) -> Result<Field<bool>, PolicyError> {
        self.take(key, "true or false", |value| value.as_bool())
    }

    pub(super) fn table(&mut self, key: &str) -> Result<Fields, PolicyError> {
        let field = self.take(key, "a table", into_table)?;
        Ok(Fields { path: field.key, table: field.value })
    }

    /// A list of texts, at least one, none twice.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<Field<String>>, PolicyError> {
        let list = self.take(key, "a list of texts", into_array)?;
        texts_of(list)
    }

    /// `"any"`, spelled out, or a list of texts.
    pub(super) fn any_or_texts(&mut self, key: &str) -> Result<Option<Vec<Field<String>>>, PolicyError> {
        let field = self.take(key, "\"any\" or a list of texts", Some)?;
        match any_or_list(field, "\"any\" or a list of texts")? {
            Some(list) => texts_of(list).map(Some),
            None => Ok(None),
        }
    }

    /// A list of tables, at least one.
    pub(super) fn tables(&mut self, key: &str) -> Result<Vec<Fields>, PolicyError> {
        let list = self.take(key, "a list of tables", into_array)?;
        tables_of(list)
    }

    /// `"any"`, spelled out, or a list of tables.
    pub(super) fn any_or_tables(&mut self, key: &str) -> Result<Option<Vec<Fields>>, PolicyError> {
        let field = self.take(key, "\"any\" or a list of tables", Some)?;
        match any_or_list(field, "\"any\" or a list of tables")? {
            Some(list) => tables_of(list).map(Some),
            None => Ok(None),
        }
    }

    /// A list of tables that may be left out, which is the same as none.
    pub(super) fn tables_if_any(&mut self, key: &str) -> Result<Vec<Fields>, PolicyError> {
        if self.table.contains_key(key) { self.tables(key) } else { Ok(Vec::new()) }
    }

    /// The tables under a key, by their names. The key may be left out, which is the same as no table.
    pub(super) fn named_tables_if_any(&mut self, key: &str) -> Result<Vec<(Field<String>, Fields)>, PolicyError> {
        if !self.table.contains_key(key) {
            return Ok(Vec::new());
        }
        let Fields { path, table } = self.table(key)?;
        let named = table.into_iter().map(|(name, value)| {
            let key = join(&path, &name);
            let table = into_table(value).ok_or_else(|| wrong_type(&key, "a table"))?;
            Ok((Field { key: key.clone(), value: name }, Fields { path: key, table }))
        });
        named.collect()
    }

    /// `"none"`, spelled out, or a list of texts.
    pub(super) fn none_or_texts(&mut self, key: &str) -> Result<Vec<Field<String>>, PolicyError> {
        let expected = "\"none\" or a list of texts";
        let field = self.take(key, expected, Some)?;
        match field.value {
            Value::String(text) if text == "none" => Ok(Vec::new()),
            Value::Array(list) => texts_of(Field { key: field.key, value: list }),
            _ => Err(wrong_type(&field.key, expected)),
        }
    }

    /// The lists under a key, by their names; nothing for one that is `"any"`.
    pub(super) fn named_texts(&mut self, key: &str) -> Result<(String, Vec<NamedTexts>), PolicyError> {
        let Fields { path, table } = self.table(key)?;
        let named = table.into_iter().map(|(name, value)| {
            let key = join(&path, &name);
            let texts = match any_or_list(Field { key: key.clone(), value }, "a list of texts")? {
                Some(list) => Some(texts_of(list)?),
                None => None,
            };
            Ok((Field { key, value: name }, texts))
        });
        Ok((path.clone(), named.collect::<Result<_, _>>()?))
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), PolicyError> {
        match self.table.keys().next() {
            Some(left) => Err(PolicyError { key: join(&self.path, left), problem: PolicyProblem::KeyUnknown }),
            None => Ok(()),
        }
    }

    /// The full name of this table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Field<T>, PolicyError> {
        let path = join(&self.path, key);
        let Some(value) = self.table.remove(key) else {
            return Err(PolicyError { key: path, problem: PolicyProblem::KeyMissing });
        };
        match read(value) {
            Some(value) => Ok(Field { key: path, value }),
            None => Err(wrong_type(&path, expected)),
        }
    }
}

/// A named list of texts, or anything.
pub(super) type NamedTexts = (Field<String>, Option<Vec<Field<String>>>);

fn any_or_list(field: Field<Value>, expected: &'static str) -> Result<Option<Field<Vec<Value>>>, PolicyError> {
    match field.value {
        Value::String(text) if text == "any" => Ok(None),
        Value::Array(list) => Ok(Some(Field { key: field.key, value: list })),
        _ => Err(wrong_type(&field.key, expected)),
    }
}

fn texts_of(list: Field<Vec<Value>>) -> Result<Vec<Field<String>>, PolicyError> {
    if list.value.is_empty() {
        return Err(list.refuse(PolicyProblem::ListEmpty));
    }
    let mut texts: Vec<Field<String>> = Vec::new();
    for (index, value) in list.value.into_iter().enumerate() {
        let key = format!("{}[{index}]", list.key);
        let Value::String(text) = value else {
            return Err(wrong_type(&key, "a text in quotes"));
        };
        let field = Field { key, value: text };
        if texts.iter().any(|earlier| earlier.value == field.value) {
            return Err(field.refuse(PolicyProblem::ItemRepeated));
        }
        texts.push(field);
    }
    Ok(texts)
}

fn tables_of(list: Field<Vec<Value>>) -> Result<Vec<Fields>, PolicyError> {
    if list.value.is_empty() {
        return Err(list.refuse(PolicyProblem::ListEmpty));
    }
    let tables = list.value.into_iter().enumerate().map(|(index, value)| {
        let path = format!("{}[{index}]", list.key);
        match into_table(value) {
            Some(table) => Ok(Fields { path, table }),
            None => Err(wrong_type(&path, "a table")),
        }
    });
    tables.collect()
}

fn into_table(value: Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn into_array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(array) => Some(array),
        _ => None,
    }
}

fn wrong_type(key: &str, expected: &'static str) -> PolicyError {
    PolicyError { key: key.to_owned(), problem: PolicyProblem::WrongType { expected } }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
