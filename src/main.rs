//! The binary `skyledger`.

fn main() -> std::process::ExitCode {
    skyledger::run()
}
