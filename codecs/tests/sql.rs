//! Summaries of SQL.

use netra_codecs::sql::{Dialect, OPERATIONS, SUMMARY_MAX, Summary};

fn summary(dialect: Dialect, text: &str, piece: usize) -> (String, &'static str) {
    let mut summary = Summary::new(dialect);
    text.as_bytes().chunks(piece).for_each(|piece| summary.push(piece));
    summary.end();
    let operation = OPERATIONS[usize::from(summary.operation())];
    (String::from_utf8(summary.as_bytes().to_vec()).unwrap(), operation)
}

/// The text is not read otherwise in pieces.
fn check(dialect: Dialect, text: &str, expected: &str, operation: &str) {
    for piece in [text.len().max(1), 1, 2, 3, 7] {
        let told = summary(dialect, text, piece);
        assert_eq!(told, (expected.to_owned(), operation_of(operation)), "{text} by {piece}");
    }
}

fn operation_of(name: &str) -> &'static str {
    OPERATIONS.into_iter().find(|known| *known == name).unwrap_or("other")
}

fn both(text: &str, expected: &str) {
    for dialect in [Dialect::Postgresql, Dialect::Mysql] {
        let first = expected.split(' ').next().unwrap_or_default().to_uppercase();
        check(dialect, text, expected, &first);
    }
}

fn postgresql(text: &str, expected: &str) {
    let first = expected.split(' ').next().unwrap_or_default().to_uppercase();
    check(Dialect::Postgresql, text, expected, &first);
}

fn mysql(text: &str, expected: &str) {
    let first = expected.split(' ').next().unwrap_or_default().to_uppercase();
    check(Dialect::Mysql, text, expected, &first);
}

/// Those of the convention.
#[test]
fn operations_and_targets_in_order() {
    both("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table");
    both(
        "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders \
         WHERE order_id = ?",
        "INSERT shipping_details SELECT orders",
    );
    both("SELECT * FROM songs, artists WHERE songs.artist_id = artists.id", "SELECT songs artists");
    both(
        "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = \
         c.customer_id)",
        "SELECT SELECT orders customers",
    );
    postgresql("SELECT * FROM \"song list\", artists", "SELECT \"song list\" artists");
    mysql("SELECT * FROM `song list`, artists", "SELECT `song list` artists");
}

#[test]
fn queries_and_changes_of_rows() {
    for (text, expected) in [
        ("select 1", "select"),
        ("  SELECT now()", "SELECT"),
        ("(SELECT 1) UNION ALL (SELECT a FROM b)", "SELECT SELECT b"),
        ("UPDATE a SET b = 1, c = 2 WHERE d = 3", "UPDATE a"),
        ("UPDATE ONLY a.b SET c = d FROM e WHERE f", "UPDATE a.b e"),
        ("DELETE FROM a USING b WHERE c", "DELETE a b"),
        ("INSERT INTO a VALUES (1, 2), (3, 4)", "INSERT a"),
        ("INSERT INTO a (b) VALUES (1) ON CONFLICT (b) DO UPDATE SET c = 1", "INSERT a"),
        ("INSERT INTO a (b) VALUES (1) ON DUPLICATE KEY UPDATE c = 1", "INSERT a"),
        ("MERGE INTO a USING b ON c WHEN MATCHED THEN UPDATE SET d = 1", "MERGE a b"),
        ("SELECT a FROM b FOR UPDATE", "SELECT b"),
        ("SELECT extract(epoch FROM a), b FROM c", "SELECT c"),
        ("SELECT substring(a from 1 for 2), b FROM c, d", "SELECT c d"),
        ("SELECT a IS DISTINCT FROM b FROM c", "SELECT c"),
        ("SELECT * FROM a JOIN b USING (id), c", "SELECT a b c"),
        ("SELECT * FROM a x LEFT JOIN b y ON x.i = y.i, c ORDER BY d, e", "SELECT a b c"),
        ("SELECT * FROM (a JOIN b ON c) JOIN d ON e", "SELECT a b d"),
        ("SELECT a FROM b GROUP BY c, d HAVING e LIMIT 1, 2", "SELECT b"),
        ("SELECT a FROM f(b, c) WHERE d IN (SELECT e FROM g)", "SELECT f SELECT g"),
        ("SELECT a FROM b WHERE EXISTS (SELECT 1 FROM c WHERE d), e", "SELECT b SELECT c"),
        ("WITH a AS (SELECT b FROM c) SELECT * FROM a", "SELECT c SELECT a"),
        (
            "WITH a AS (DELETE FROM b RETURNING *) INSERT INTO c SELECT * FROM a",
            "DELETE b INSERT c SELECT a",
        ),
        ("WITH a AS (SELECT 1) UPDATE b SET c = 1", "SELECT UPDATE b"),
    ] {
        both(text, expected);
    }
}

#[test]
fn other_statements() {
    for (text, expected) in [
        ("CREATE TABLE a (b int, c text)", "CREATE TABLE a"),
        ("CREATE TABLE IF NOT EXISTS a AS SELECT * FROM b", "CREATE TABLE a SELECT b"),
        ("CREATE TEMPORARY TABLE a (b int)", "CREATE TABLE a"),
        ("CREATE OR REPLACE VIEW a AS SELECT * FROM b", "CREATE VIEW a SELECT b"),
        ("CREATE UNIQUE INDEX a ON b (c)", "CREATE INDEX a"),
        ("DROP TABLE IF EXISTS a", "DROP TABLE a"),
        ("ALTER TABLE a ADD COLUMN b int", "ALTER TABLE a"),
        ("CREATE USER joe", "CREATE USER"),
        ("TRUNCATE TABLE a", "TRUNCATE a"),
        ("TRUNCATE a", "TRUNCATE a"),
        ("LOCK TABLE a", "LOCK a"),
        ("EXPLAIN SELECT * FROM a", "EXPLAIN SELECT a"),
        ("EXPLAIN ANALYZE VERBOSE UPDATE a SET b = 1", "EXPLAIN UPDATE a"),
        ("EXPLAIN (ANALYZE) DELETE FROM a", "EXPLAIN DELETE a"),
        ("CALL refresh_all(1)", "CALL refresh_all"),
        ("SET a = 1, b = 2", "SET"),
        ("SHOW search_path", "SHOW"),
        ("COMMIT", "COMMIT"),
        ("ROLLBACK TO SAVEPOINT s", "ROLLBACK"),
        ("PREPARE a AS SELECT * FROM b", "PREPARE SELECT b"),
        ("EXECUTE a(1)", "EXECUTE"),
        ("GRANT SELECT ON a TO b", "GRANT SELECT"),
        ("ANALYZE a", "ANALYZE a"),
    ] {
        both(text, expected);
    }
}

#[test]
fn statements_of_postgresql() {
    for (text, expected) in [
        ("COPY a (b, c) FROM STDIN", "COPY a"),
        ("COPY a FROM STDIN WITH (FORMAT csv)", "COPY a"),
        ("COPY (SELECT * FROM a) TO STDOUT", "COPY SELECT a"),
        ("DECLARE c CURSOR FOR SELECT * FROM a", "DECLARE SELECT a"),
        ("FETCH 100 FROM c", "FETCH"),
        ("LISTEN a", "LISTEN a"),
        ("NOTIFY a, 'b'", "NOTIFY a"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY a", "REFRESH VIEW a"),
        ("DO $$ BEGIN DELETE FROM a; END $$", "DO"),
        ("VACUUM a", "VACUUM a"),
    ] {
        postgresql(text, expected);
    }
}

#[test]
fn statements_of_mysql() {
    for (text, expected) in [
        ("REPLACE INTO a VALUES (1)", "REPLACE a"),
        ("INSERT IGNORE INTO a VALUES (1)", "INSERT a"),
        ("DELETE a FROM a JOIN b ON c", "DELETE a b"),
        ("UPDATE a, b SET c = 1, d = 2", "UPDATE a b"),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE a", "LOAD a"),
        ("USE a", "USE a"),
        ("SELECT a INTO OUTFILE 'x' FROM b", "SELECT b"),
        ("SELECT a REGEXP \"b FROM c\" FROM d", "SELECT d"),
        ("SELECT a -- b FROM c\n FROM d", "SELECT d"),
        ("SELECT a --1 FROM d", "SELECT d"),
        ("SELECT a # b FROM c\n FROM d", "SELECT d"),
    ] {
        mysql(text, expected);
    }
}

/// What several statements do, and which of them they are counted as.
#[test]
fn several_statements() {
    let postgresql = |text: &str, expected: &str, operation: &str| {
        check(Dialect::Postgresql, text, expected, operation);
    };
    postgresql("SELECT a FROM b; DELETE FROM c;", "SELECT b DELETE c", "SELECT");
    postgresql("BEGIN; UPDATE a SET b = 1; COMMIT", "BEGIN UPDATE a COMMIT", "UPDATE");
    postgresql(
        "START TRANSACTION; SAVEPOINT s; COPY a FROM STDIN",
        "START SAVEPOINT COPY a",
        "COPY",
    );
    postgresql("BEGIN", "BEGIN", "BEGIN");
    postgresql("", "", "other");
    postgresql(";; -- nothing", "", "other");
    postgresql("FROBNICATE a; SELECT b FROM c", "SELECT c", "SELECT");
}

/// Nothing within a literal or a comment is ever told.
#[test]
fn literals_and_comments_are_not_looked_into() {
    for text in [
        "SELECT 'x FROM secret' FROM a",
        "SELECT 'it''s FROM secret' FROM a",
        "SELECT '; DELETE FROM secret' FROM a",
        "SELECT b /* FROM secret */ FROM a",
        "SELECT b -- FROM secret\n FROM a",
        "/*traceparent='00-secret'*/ SELECT b FROM a /* secret */",
        "SELECT N'secret', X'5ec4e7' FROM a",
        "SELECT b FROM a WHERE c = 'SELECT d FROM secret",
        "SELECT b FROM a WHERE c = 12345secret",
        "SELECT b FROM a, 'secret'",
    ] {
        both(text, "SELECT a");
    }
    for text in [
        "SELECT 'x\\y', '\\\\' FROM a",
        "SELECT E'\\' FROM secret' FROM a",
        "SELECT e'\\\\' FROM a",
        "SELECT $$ FROM secret $$ FROM a",
        "SELECT $x$ FROM secret $$ $y$ $x $x$ FROM a",
        "SELECT /* /* FROM secret */ FROM secret */ b FROM a",
        "SELECT b FROM a WHERE c = $1 AND d = $2",
        "SELECT b FROM a, $x$secret$x$",
    ] {
        postgresql(text, "SELECT a");
    }
    for text in [
        "SELECT 'x\\' FROM secret' FROM a",
        "SELECT \"x\\\" FROM secret\" FROM a",
        "SELECT /* /* FROM secret */ b FROM a",
        "SELECT _utf8'secret' FROM a",
    ] {
        mysql(text, "SELECT a");
    }
}

/// `standard_conforming_strings` says whether the literal ends there.
#[test]
fn what_is_not_certain_is_not_told() {
    postgresql("SELECT 1 FROM a WHERE b = 'x\\' FROM secret --' FROM secret", "SELECT a");
    postgresql("SELECT 'x\\' FROM a", "SELECT");
}

#[test]
fn names_are_told_as_they_are_written() {
    postgresql("SELECT 1 FROM \"a\"\"b\".\"c d\" x", "SELECT \"a\"\"b\".\"c d\"");
    postgresql("SELECT 1 FROM Public.\"Order\"", "SELECT Public.\"Order\"");
    mysql("SELECT 1 FROM `a``b`.`c`", "SELECT `a``b`.`c`");
    both("sElEcT 1 fRoM größe", "sElEcT größe");
    both("SELECT 1 FROM user", "SELECT user");
}

/// Bounded: a word that does not fit is the end.
#[test]
fn long_texts_have_short_summaries() {
    let tables: Vec<_> = (0..200).map(|i| format!("table_{i:03}")).collect();
    let text = format!("SELECT * FROM {}", tables.join(", "));
    let (told, _) = summary(Dialect::Postgresql, &text, 16);
    assert!(told.len() <= SUMMARY_MAX && told.len() > SUMMARY_MAX - 10, "{told}");
    assert!(told.starts_with("SELECT table_000 table_001") && told.ends_with("table_023"));
    for piece in 1..20 {
        assert_eq!(summary(Dialect::Postgresql, &text, piece).0, told);
    }
    let long = "x".repeat(300);
    postgresql(&format!("SELECT 1 FROM {long}"), "SELECT");
    postgresql(&format!("SELECT {long} FROM a"), "SELECT a");
    postgresql(&"(".repeat(1000), "");
    postgresql(&format!("SELECT 1 FROM a {} b", "/*".repeat(1000)), "SELECT a");
}

#[test]
fn what_was_summed_up_before_is_added_once() {
    let mut all = Summary::new(Dialect::Postgresql);
    let of = |text: &str| {
        let mut summary = Summary::new(Dialect::Postgresql);
        summary.push(text.as_bytes());
        summary.end();
        summary
    };
    for text in ["BEGIN", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)", "COMMIT"] {
        let one = of(text);
        all.add(one.as_bytes(), one.operation());
    }
    assert_eq!(all.as_bytes(), b"BEGIN INSERT a COMMIT");
    assert_eq!(OPERATIONS[usize::from(all.operation())], "INSERT");
    all.clear();
    assert_eq!((all.as_bytes(), all.operation()), (&b""[..], 0));
}

/// Any bytes, in any pieces.
#[test]
fn garbage_is_summed_up_to_something_short() {
    let mut state = 7_u64;
    let pieces = [
        "SELECT ", "FROM ", "'", "\"", "`", "$", "$$", "a", "(", ")", ",", ";", "/*", "*/", "--",
        "\n", "\\", "INTO ", "E'", ".", "\u{80}", "UPDATE ", "JOIN ",
    ];
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(pieces[usize::try_from(state % pieces.len() as u64).unwrap()]);
        }
        for dialect in [Dialect::Postgresql, Dialect::Mysql] {
            let whole = summary(dialect, &text, text.len());
            assert_eq!(summary(dialect, &text, 1), whole, "{text}");
            assert!(whole.0.len() <= SUMMARY_MAX);
        }
    }
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the comments of a text carry, in any pieces.
fn carried(dialect: Dialect, text: &str) -> Option<String> {
    let of = |piece: usize| {
        let mut summary = Summary::new(dialect);
        text.as_bytes().chunks(piece).for_each(|piece| summary.push(piece));
        summary.end();
        summary.traceparent().map(|it| String::from_utf8(it.to_vec()).unwrap())
    };
    let whole = of(text.len());
    for piece in [1, 2, 3, 7] {
        assert_eq!(of(piece), whole, "{text} by {piece}");
    }
    whole
}

#[test]
fn comments_carry_contexts_and_literals_do_not() {
    let pair = format!("traceparent='{PARENT}'");
    for dialect in [Dialect::Postgresql, Dialect::Mysql] {
        for text in [
            format!("SELECT 1 /*{pair}*/"),
            format!("/*action='b%27uy', {pair},tracestate='a%3Db'*/ SELECT 1"),
            format!("SELECT 1 /* no pair */ /*x='1',\n{pair}*/ FROM t"),
            // The first that is whole stays.
            format!(
                "SELECT 1 /*traceparent='00-0af7',{pair}*/ /*traceparent='{}'*/",
                "0".repeat(55)
            ),
        ] {
            assert_eq!(carried(dialect, &text).as_deref(), Some(PARENT), "{text}");
        }
        for text in [
            format!("SELECT '/*{pair}*/' FROM t"),
            format!("SELECT 1 -- {pair}"),
            format!("SELECT 1 /*my{pair}*/"),
            format!("SELECT 1 /*traceparent='{PARENT}"),
            format!("SELECT 1 /*traceparent='{PARENT}-00'*/"),
            format!("SELECT 1 /*traceparent={PARENT}*/"),
            format!("SELECT {pair}"),
        ] {
            assert_eq!(carried(dialect, &text), None, "{text}");
        }
    }
    postgresql(&format!("SELECT a /*{pair}*/ FROM t"), "SELECT t");
    let mut summary = Summary::new(Dialect::Mysql);
    summary.push(format!("SELECT 1 /*{pair}*/").as_bytes());
    summary.clear();
    summary.push(b"SELECT 1");
    assert_eq!(summary.traceparent(), None);
}
