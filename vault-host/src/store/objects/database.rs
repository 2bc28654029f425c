//! Objects in one table of a Postgres database: each write is one statement, so two writers are told apart by the row.
//!
//! ```sql
//! SCHEMA.objects (name text PRIMARY KEY, revision uuid, written timestamptz, body bytea)
//! SCHEMA.store   (version integer, id uuid)   -- one row
//! ```
//!
//! A revision is made anew for each write, and by chance: a database that comes back from an older copy has no revision that
//! a host knows from after it.

use std::fmt;
use std::path::PathBuf;

use tokio::runtime::Handle;
use tokio_postgres::types::Type;

mod config;
mod failed;
mod passfile;
mod pool;
mod schema;
mod tls;

pub(crate) use config::RawPostgres;
pub use config::{PostgresConfig, PostgresError, UnitsConfig};

use pool::Pool;
use schema::Missing;

use super::place::{If, Listed, Objects, Tag, Written};
use crate::store::StoreError;

/// The objects of one schema.
pub(super) struct Database {
    pool: Pool,
    schema: String,
    id: String,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.pool.name(""))
    }
}

impl Database {
    /// Connects, and makes the schema where there is none.
    pub(super) fn open(config: &PostgresConfig, runtime: Handle) -> Result<Self, StoreError> {
        let pool = Pool::new(config, runtime).map_err(StoreError::Postgres)?;
        let id = schema::id(&pool, &config.quoted_schema(), Missing::Make)?.expect("it was made");
        Ok(Self { pool, schema: config.quoted_schema(), id })
    }

    /// Connects; `None` where there is no schema yet, but it could be made.
    pub(super) fn find(config: &PostgresConfig, runtime: Handle) -> Result<Option<Self>, StoreError> {
        let pool = Pool::new(config, runtime).map_err(StoreError::Postgres)?;
        let id = schema::id(&pool, &config.quoted_schema(), Missing::Rehearse)?;
        Ok(id.map(|id| Self { pool, schema: config.quoted_schema(), id }))
    }

    /// Which store this is, by chance: a copy in another schema is another one.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl Objects for Database {
    fn get(&self, name: &str, max: usize) -> Result<Option<(Vec<u8>, Tag)>, StoreError> {
        let statement = format!(
            "SELECT revision::text, substring(body FROM 1 FOR $2) FROM {}.objects WHERE name = $1",
            self.schema
        );
        let one_more = i32::try_from(max).unwrap_or(i32::MAX - 1) + 1;
        let row = self.pool.run(name, async |client| {
            client.query_typed_opt(&statement, &[(&name, Type::TEXT), (&one_more, Type::INT4)]).await
        })?;
        let Some(row) = row else { return Ok(None) };
        let (tag, body) = (self.column(name, row.try_get(0))?, self.column::<&[u8]>(name, row.try_get(1))?);
        if body.len() > max {
            return Err(self.damaged(name, "longer than such an object is"));
        }
        Ok(Some((body.to_vec(), tag)))
    }

    fn length(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let statement = format!("SELECT octet_length(body) FROM {}.objects WHERE name = $1", self.schema);
        let row =
            self.pool.run(name, async |client| client.query_typed_opt(&statement, &[(&name, Type::TEXT)]).await)?;
        let length = row.map(|row| self.column::<i32>(name, row.try_get(0))).transpose()?;
        Ok(length.map(|length| u64::try_from(length).unwrap_or_default()))
    }

    fn put(&self, name: &str, bytes: Vec<u8>, condition: If<'_>) -> Result<Written, StoreError> {
        let objects = format!("{}.objects", self.schema);
        let insert = format!(
            "INSERT INTO {objects} (name, revision, written, body) VALUES ($1, gen_random_uuid(), now(), $2) ON CONFLICT (name)"
        );
        let set = "revision = gen_random_uuid(), written = now(), body = $2";
        let statement = match condition {
            If::Always => format!("{insert} DO UPDATE SET {set} RETURNING revision::text"),
            If::Unchanged(None) => format!("{insert} DO NOTHING RETURNING revision::text"),
            If::Unchanged(Some(_)) => {
                format!("UPDATE {objects} SET {set} WHERE name = $1 AND revision::text = $3 RETURNING revision::text")
            }
        };
        let row = self.pool.run(name, async |client| {
            let mut values: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> =
                vec![(&name, Type::TEXT), (&bytes, Type::BYTEA)];
            if let If::Unchanged(Some(tag)) = &condition {
                values.push((*tag, Type::TEXT));
            }
            client.query_typed_opt(&statement, &values).await
        })?;
        match row {
            Some(row) => Ok(Written::Yes(self.column(name, row.try_get(0))?)),
            None => Ok(Written::Changed),
        }
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let statement = format!("DELETE FROM {}.objects WHERE name = $1", self.schema);
        self.pool.run(name, async |client| client.execute_typed(&statement, &[(&name, Type::TEXT)]).await).map(drop)
    }

    fn list(&self, dir: &str) -> Result<Vec<Listed>, StoreError> {
        // Names sort by their bytes, and 0 comes behind the slash.
        let statement =
            format!("SELECT name, written FROM {}.objects WHERE name > $1 || '/' AND name < $1 || '0'", self.schema);
        let rows = self.pool.run(dir, async |client| client.query_typed(&statement, &[(&dir, Type::TEXT)]).await)?;
        let listed = |row: tokio_postgres::Row| {
            Ok(Listed { name: self.column(dir, row.try_get(0))?, written: self.column(dir, row.try_get(1))? })
        };
        rows.into_iter().map(listed).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.pool.name(name).into()
    }
}

impl Database {
    fn column<T>(&self, name: &str, value: Result<T, tokio_postgres::Error>) -> Result<T, StoreError> {
        value.map_err(|_| self.damaged(name, "the table has another form"))
    }
}
