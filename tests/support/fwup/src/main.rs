//! The `fwup-standin` command: hands its arguments to the library.

fn main() {
    let args = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    std::process::exit(fwup_standin::cli::run(args));
}
