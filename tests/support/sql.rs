use std::error::Error;

use postgres::error::DbError;
use postgres::types::private::BytesMut;
use postgres::types::{Format, FromSqlOwned, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, SimpleQueryMessage};

/// A parameter sent as text whatever its type, as drivers do that do not know the type.
#[derive(Debug)]
pub struct AsText<'a>(pub &'a str);

impl ToSql for AsText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A parameter sent as these bytes in binary form whatever its type.
#[derive(Debug)]
pub struct AsBytes<'a>(pub &'a [u8]);

impl ToSql for AsBytes<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What a test says to a connection, in one word each.
pub trait Sql {
    /// Statements whose result does not matter.
    fn run(&mut self, sql: &str);
    /// The only column of the only row.
    fn one<T: FromSqlOwned>(&mut self, sql: &str) -> T;
    /// The text of that column, as the output function writes it.
    fn text(&mut self, sql: &str) -> String;
    /// The first column of every row.
    fn column<T: FromSqlOwned>(&mut self, sql: &str) -> Vec<T>;
    /// The error that the statements must end with.
    fn error(&mut self, sql: &str) -> DbError;
    /// The SQLSTATE of that error.
    fn state(&mut self, sql: &str) -> String {
        self.error(sql).code().code().to_owned()
    }
    /// The error with this SQLSTATE that the statements must end with; the session goes on.
    fn refused(&mut self, sql: &str, state: &str) -> DbError {
        let error = self.error(sql);
        assert_eq!(error.code().code(), state, "{sql:.300}: {error}");
        assert_eq!(self.one::<i32>("SELECT 1"), 1);
        error
    }
    /// The name of the database that the session is in.
    fn database(&mut self) -> String {
        self.one("SELECT current_database()::text")
    }
}

impl Sql for Client {
    fn run(&mut self, sql: &str) {
        self.batch_execute(sql).unwrap_or_else(|error| panic!("{sql:.300}: {error:?}"));
    }

    fn one<T: FromSqlOwned>(&mut self, sql: &str) -> T {
        self.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql:.300}: {error:?}")).get(0)
    }

    fn text(&mut self, sql: &str) -> String {
        let answer = self.simple_query(sql).unwrap_or_else(|error| panic!("{sql:.300}: {error:?}"));
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.unwrap_or_else(|| panic!("{sql:.300}: no row")).to_owned()
    }

    fn column<T: FromSqlOwned>(&mut self, sql: &str) -> Vec<T> {
        let rows = self.query(sql, &[]).unwrap_or_else(|error| panic!("{sql:.300}: {error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    fn error(&mut self, sql: &str) -> DbError {
        let error = self.batch_execute(sql).err().unwrap_or_else(|| panic!("{sql:.300}: no error"));
        error.as_db_error().cloned().unwrap_or_else(|| panic!("{sql:.300}: {error:?}"))
    }
}
