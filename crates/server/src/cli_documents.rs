//! What the command line says of itself: a reference in Markdown, manual pages, and completions for shells. All of it is made
//! from the definition of the commands.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use clap::{Arg, Command};
use clap_complete::Shell;

/// With what commands end. `0` and `1` are for all; a command that uses another number, or one of these for something else, has
/// a line. A test sees to it that each is a command.
const ENDINGS: &[(&str, &str)] = &[
    ("audit verify", "`1` also where something in the log is not as it was written"),
    ("bench", "`3` where a request was not answered as it should be"),
    ("doctor", "`1` where something is wrong, and with `--strict` where something could be better"),
    ("erase", "`3` where something is held or could not be erased"),
    ("import", "`3` where something that was to be brought in can't be read"),
    ("privacy erase", "`3` where something is held or could not be erased"),
    ("routes report", "`3` where both sides differ"),
    ("serve", "`0` once it has stopped because it was asked to (SIGTERM, SIGINT)"),
];

/// Options that many commands share with `serve`: they are described in one place.
const ELSEWHERE: &str = "serve";

const HEAD: &str = "\
# Command line

Written by `throughline config cli`; change what the commands say of themselves (`crates/server/src/cli.rs`) instead.

`throughline COMMAND --help` says the same, with examples. `throughline completions SHELL` prints completions for a shell, `throughline man --out FOLDER` writes
manual pages.

**How commands end.** `0`: done. `1`: not done, and standard error says why in a line that begins with `error:`. `2`: the command line itself is wrong. Others, and
other reasons for these:

";

/// Every command, in Markdown.
#[must_use]
pub fn reference(root: Command) -> String {
    let mut root = root;
    root.build();
    let mut text = HEAD.to_owned();
    text.push_str("| command | ends with |\n| --- | --- |\n");
    for (command, ending) in ENDINGS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "| `{command}` | {ending} |");
    }
    let shared: Vec<String> = root
        .find_subcommand(ELSEWHERE)
        .map(|serve| {
            serve.get_arguments().filter(|option| is_shown(option)).map(|option| option.get_id().to_string()).collect()
        })
        .unwrap_or_default();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(command, "", &shared, &mut text);
    }
    text
}

fn describe(command: &Command, above: &str, shared: &[String], text: &mut String) {
    let path = if above.is_empty() { command.get_name().to_owned() } else { format!("{above} {}", command.get_name()) };
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let within: Vec<&Command> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
    let _ = write!(text, "\n## `{path}`\n\n{about}.\n");
    let (configured, own): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(|option| is_shown(option)).partition(|option| {
            shared.iter().any(|shared| shared == option.get_id().as_str()) && option.get_env().is_some()
        });
    if !configured.is_empty() {
        let all = if configured.len() == shared.len() { "The" } else { "Some" };
        let names: Vec<String> =
            configured.iter().filter_map(|option| option.get_long()).map(|name| format!("`--{name}`")).collect();
        let named = if configured.len() == shared.len() { String::new() } else { format!(": {}", names.join(", ")) };
        let _ = write!(text, "\n{all} options of the [configuration](configuration.md){named}.\n");
    }
    if !own.is_empty() {
        text.push_str("\n| argument | what it does |\n| --- | --- |\n");
        own.iter().for_each(|option| row(option, text));
    }
    within.into_iter().for_each(|command| describe(command, &path, shared, text));
}

fn is_shown(option: &Arg) -> bool {
    !option.is_hide_set() && !matches!(option.get_id().as_str(), "help" | "version")
}

fn row(option: &Arg, text: &mut String) {
    let form = option.get_value_names().filter(|_| option.get_action().takes_values()).map(|names| names.join(" "));
    let mut names = Vec::new();
    match (option.get_long(), &form) {
        (Some(long), Some(form)) => names.push(format!("`--{long} {form}`")),
        (Some(long), None) => names.push(format!("`--{long}`")),
        (None, form) => names.push(format!("`{}`", form.as_deref().unwrap_or(option.get_id().as_str()))),
    }
    names.extend(option.get_short().map(|short| format!("`-{short}`")));
    names.extend(option.get_env().map(|name| format!("`{}`", name.to_string_lossy())));
    let mut help = option.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let words: Vec<String> = option.get_possible_values().iter().map(|word| format!("`{}`", word.get_name())).collect();
    if !words.is_empty() && form.is_some() {
        let _ = write!(help, ": {}", words.join(", "));
    }
    let default: Vec<String> =
        option.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if !default.is_empty() && form.is_some() {
        let _ = write!(help, ". Without it, {}", default.join(", "));
    }
    let _ = writeln!(text, "| {} | {} |", names.join("<br>"), help.replace('|', "\\|"));
}

/// Completions for `shell`.
#[must_use]
pub fn completions(mut root: Command, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "throughline", &mut script);
    script
}

/// Writes a manual page for each command; how many.
///
/// # Errors
/// When `folder` can't be written to.
pub fn manual(root: Command, folder: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(root, folder)?;
    Ok(std::fs::read_dir(folder)?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ends_in_its_own_way_is_a_command() {
        let root = crate::cli::definition();
        for (path, _) in ENDINGS {
            let found = path.split(' ').try_fold(&root, |command, name| command.find_subcommand(name));
            assert!(found.is_some(), "{path}");
        }
    }

    #[test]
    fn every_argument_of_every_command_says_what_it_does() {
        fn check(command: &Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for option in command.get_arguments().filter(|option| is_shown(option)) {
                assert!(option.get_help().is_some(), "{}: {}", command.get_name(), option.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        crate::cli::definition().get_subcommands().for_each(check);
    }
}
