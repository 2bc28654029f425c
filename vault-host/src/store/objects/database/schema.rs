//! The tables, made by the first host that starts, and their version.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::failed::Failed;
use super::pool::Pool;
use crate::store::StoreError;

/// The version of the tables that this program makes and knows.
pub(super) const VERSION: i32 = 1;
/// Whoever makes the tables has this lock: "weightv" in bytes.
const LOCK: i64 = 0x77_65_69_67_68_74_76;

/// What to do where there are no tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make them.
    Make,
    /// Make them and take that back, which tells whether they can be made.
    Rehearse,
}

/// Which store the tables are of; `None` where there are none, or none any more.
pub(super) fn id(pool: &Pool, schema: &str, missing: Missing) -> Result<Option<String>, StoreError> {
    pool.run_checked("store", async |client| {
        if let Some(id) = find(client, schema).await? {
            return Ok(Some(id));
        }
        client.batch_execute("BEGIN").await?;
        client.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
        let found = find(client, schema).await?;
        if found.is_none() {
            make(client, schema).await?;
        }
        if missing == Missing::Rehearse {
            client.batch_execute("ROLLBACK").await?;
            return Ok(found);
        }
        client.batch_execute("COMMIT").await?;
        find(client, schema).await
    })
}

async fn find(client: &Client, schema: &str) -> Result<Option<String>, Failed> {
    let tables = "SELECT to_regclass($1) IS NOT NULL";
    let is_there: bool =
        client.query_typed_one(tables, &[(&format!("{schema}.store"), Type::TEXT)]).await?.try_get(0)?;
    if !is_there {
        return Ok(None);
    }
    let row = client.query_typed_one(&format!("SELECT version, id::text FROM {schema}.store"), &[]).await?;
    match row.try_get(0)? {
        VERSION => Ok(Some(row.try_get(1)?)),
        found => Err(Failed::Newer { found }),
    }
}

async fn make(client: &Client, schema: &str) -> Result<(), Error> {
    let there = "SELECT to_regnamespace($1) IS NOT NULL";
    let is_there: bool = client.query_typed_one(there, &[(&schema, Type::TEXT)]).await?.try_get(0)?;
    // Even where it is there already, this asks for a right that an administrator who made it need not have given.
    if !is_there {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    // What is stored does not get shorter by compression; unpacked, the beginning of a long one is read alone.
    client
        .batch_execute(&format!(
            "CREATE TABLE {schema}.objects (
                name text COLLATE \"C\" PRIMARY KEY,
                revision uuid NOT NULL,
                written timestamptz NOT NULL,
                body bytea NOT NULL
            );
            ALTER TABLE {schema}.objects ALTER COLUMN body SET STORAGE EXTERNAL;
            CREATE TABLE {schema}.store (version integer NOT NULL, id uuid NOT NULL);
            INSERT INTO {schema}.store VALUES ({VERSION}, gen_random_uuid());"
        ))
        .await
}
