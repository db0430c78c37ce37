//! `lifeboat`: parse, run, print the error and its hint, exit.

fn main() -> std::process::ExitCode {
    lifeboat::cli::main()
}
