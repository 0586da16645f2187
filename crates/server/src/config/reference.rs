//! What there is to configure, told from one list: the options with what they say of themselves, and
//! `options::DEFAULTS`. Help and `docs/configuration.md` both come from here.

use std::fmt::Write as _;

use clap::{Arg, Args as _, Command};

use super::ServeOptions;
use super::options::DEFAULTS;

/// What each form of a value looks like. A test sees to it that each has its line.
const FORMS: &[(&str, &str)] = &[
    ("FILE", "the path of a file"),
    ("FOLDER", "the path of a folder"),
    ("COMMAND", "a command for `sh -c`"),
    ("ADDRESS:PORT", "`127.0.0.1:8787`, `0.0.0.0:8787`, `[::]:8787`"),
    ("URL", "`sqlite:FILE` or `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full`"),
    ("URL,…", "`redis://HOST:PORT` or `rediss://USER:PASSWORD@HOST:PORT`, several separated by commas"),
    ("PREFIX", "a text without `{` and `}`"),
    ("DURATION", "a number and a unit: `250ms`, `10s`, `30m`, `1h 30m`"),
    ("DURATION,…", "several of them, separated by commas: `5s,1m,30m`"),
    ("COUNT", "a whole number, 1 or more"),
    ("RATIO", "a number from 0 to 1: `0.05`"),
    ("RECEIVER", "`http://127.0.0.1:4318`, `https://otlp.example/path`"),
    ("SIZE", "a number of bytes: `65536`, `64KiB`, `1MiB`"),
    (
        "ORIGIN,…",
        "`https://shop.example`, or `https://shop-a.example=shop-a` with its tenant, several separated by commas; a list in the file",
    ),
    ("CIDR,…", "`10.0.0.0/8`, `2001:db8::1`, several separated by commas; a list in the file"),
    ("TENANT", "a name of lower-case letters, digits, `-` and `_`"),
    ("BOOL", "`true` or `false`"),
    ("FILTER", "`info`, `warn,throughline_server=debug`"),
];

/// Options that stand in no file.
const NOT_IN_A_FILE: [&str; 2] = ["config", "dev"];

fn defaults() -> toml::Table {
    // A test reads it; were it unreadable, help would lack the defaults, and the server would say so at its start.
    DEFAULTS.parse().unwrap_or_default()
}

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(switch) => switch.to_string(),
        // A test sees to it that there are no others.
        _ => String::new(),
    }
}

/// Adds to each option's help what holds without it.
#[must_use]
pub fn with_defaults(command: Command) -> Command {
    let defaults = defaults();
    command.mut_args(|option| match (defaults.get(option.get_id().as_str()), option.get_help()) {
        (Some(value), Some(help)) => {
            let help = format!("{help} [default: {}]", shown(value));
            option.help(help.clone()).long_help(help)
        }
        _ => option,
    })
}

/// The options with their defaults, as a file to begin with.
#[must_use]
pub const fn defaults_file() -> &'static str {
    DEFAULTS
}

/// Every option, in Markdown.
#[must_use]
pub fn markdown() -> String {
    let options = ServeOptions::augment_args(Command::new("serve"));
    let defaults = defaults();
    let mut text = String::from(HEAD);
    let mut heading = None;
    for option in options.get_arguments() {
        if heading != option.get_help_heading() {
            heading = option.get_help_heading();
            let _ = writeln!(
                text,
                "\n## {}\n\n| option | value | default | what it does |\n| --- | --- | --- | --- |",
                heading.unwrap_or("Other")
            );
        }
        describe(option, &defaults, &mut text);
    }
    text.push_str("\n## Forms of values\n\n");
    for (name, form) in FORMS {
        let _ = writeln!(text, "- `{name}`: {form}");
    }
    text.push_str(TAIL);
    text
}

// Writing to a `String` cannot fail.
fn describe(option: &Arg, defaults: &toml::Table, text: &mut String) {
    let id = option.get_id().as_str();
    let mut names = vec![format!("`--{}`", option.get_long().unwrap_or(id))];
    names.extend(option.get_env().map(|name| format!("`{}`", name.to_string_lossy())));
    match NOT_IN_A_FILE.contains(&id) {
        true => names.push("not in a file".to_owned()),
        false => names.push(format!("`{id}`")),
    }
    let words: Vec<String> = option.get_possible_values().iter().map(|word| format!("`{}`", word.get_name())).collect();
    let form = match option.get_value_names() {
        Some([name]) if is_form(name) => format!("`{name}`"),
        _ if option.get_action().takes_values() => words.join(" or "),
        _ => "no value; `true` or `false` in the environment".to_owned(),
    };
    let default = defaults.get(id).map_or_else(|| "—".to_owned(), |value| format!("`{}`", shown(value)));
    let help = option.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
    let _ = writeln!(text, "| {} | {form} | {default} | {help} |", names.join("<br>"));
}

fn is_form(name: &str) -> bool {
    FORMS.iter().any(|(form, _)| *form == name)
}

const HEAD: &str = "\
# Configuration

Written by `throughline config reference`; change `crates/server/src/config/options.rs` and `defaults.toml` instead.

Each option can be set as a flag, as a variable in the environment, or under its name in a TOML file (`--config FILE`);
the first of them wins. `throughline config defaults` prints a file with all defaults, `throughline doctor` with the same
options says whether they work here, and [an example](operations/throughline.toml) shows a server of several.
";

const TAIL: &str = "
## Secrets

Keys are never flags, which everybody on the machine can read, and never in the file, which gets committed.

| what | variable | or a file |
| --- | --- | --- |
| the [key ring](operations/keys.md), from which all other keys are derived | `THROUGHLINE_KEYS` | `--keys-file`, or the output of `--keys-command` |
| hashes of bootstrap service keys | `THROUGHLINE_SERVICE_KEY_HASHES`, separated by commas | `--service-key-hashes-file`, one a line |
| the password of PostgreSQL | `PGPASSWORD`, or in `THROUGHLINE_DATABASE_URL` | `PGPASSFILE` |
| the password of Redis | in `THROUGHLINE_REDIS_URL` | |

`throughline keys generate` makes keys. [Service keys](operations/service-keys.md) that have scopes and can be revoked are in the database.
";

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::Config;
    use super::*;

    fn options() -> Command {
        ServeOptions::augment_args(Command::new("serve"))
    }

    fn docs(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file)
    }

    /// Compares with the committed file, or writes it with `UPDATE_GOLDEN=1`.
    fn is_committed(file: &str, text: &str) {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(docs(file), text).unwrap();
        }
        let committed = std::fs::read_to_string(docs(file)).unwrap_or_default();
        assert!(committed == text, "docs/{file} is out of date; write it with `cargo xtask docs`");
    }

    #[test]
    fn the_committed_reference_is_up_to_date() {
        is_committed("cli.md", &crate::cli_documents::reference(crate::cli::definition()));
        is_committed("configuration.md", &markdown());
        is_committed("operations/metrics.md", &crate::telemetry::catalogue::reference());
        is_committed("openapi.json", &crate::http::reference::document());
    }

    #[test]
    fn every_option_says_what_it_needs_to() {
        for option in options().get_arguments() {
            let id = option.get_id();
            assert!(option.get_help_heading().is_some(), "{id} has no heading");
            assert!(option.get_env().is_some() && option.get_help().is_some(), "{id}");
            let help = option.get_help().unwrap().to_string();
            assert!(!help.contains("[default"), "{id}: its default belongs into defaults.toml");
            for name in option.get_value_names().unwrap_or_default() {
                let is_told = !option.get_possible_values().is_empty() || !option.get_action().takes_values();
                assert!(is_told || is_form(name), "{id}: what is {name}?");
            }
        }
    }

    #[test]
    fn every_default_is_of_an_option_and_works() {
        let (options, defaults) = (options(), DEFAULTS.parse::<toml::Table>().unwrap());
        for name in defaults.keys() {
            assert!(options.get_arguments().any(|option| option.get_id() == name.as_str()), "{name}");
            assert!(!shown(&defaults[name]).is_empty(), "{name}");
        }
        Config::resolve(ServeOptions::defaults().unwrap()).unwrap();
    }

    #[test]
    fn help_shows_the_defaults() {
        let help = with_defaults(options()).render_long_help().to_string();
        assert!(help.contains("[default: 127.0.0.1:8787]") && help.contains("[default: 900ms]"), "{help}");
    }

    #[test]
    fn the_example_of_a_file_works() {
        let config = Some(docs("operations/throughline.toml"));
        Config::resolve(ServeOptions { config, ..ServeOptions::default() }).unwrap();
    }
}
