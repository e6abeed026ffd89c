//! Command line to exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let env = std::env::vars_os().collect();
    ExitCode::from(nerveshub_agent::cli::run(&arguments, env))
}
