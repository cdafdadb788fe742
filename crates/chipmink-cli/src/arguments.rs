//! What can be asked for.

use clap::{Args, Parser, Subcommand};

/// Looks into chipmink repositories
#[derive(Parser, Debug)]
#[command(name = "chipmink", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the versions, newest first
    Log(LogArguments),
    /// Show a version and its variables, or the pods of one variable
    Show(ShowArguments),
    /// Show which variables differ between two versions
    Diff(DiffArguments),
    /// Check that everything the versions reach is there and undamaged
    Verify(VerifyArguments),
    /// Write out the bytes of a pod, any other blob, or a buffer
    Cat(CatArguments),
}

/// What every command needs.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Folder or file:// URL of the repository
    pub(crate) place: String,
    /// Print JSON; errors, too
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// At most so many versions
    #[arg(short = 'n', long)]
    pub(crate) limit: Option<usize>,
    /// Only versions saved to this ref
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) ref_name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the version, or a ref for its newest
    #[arg(default_value = "main")]
    pub(crate) version: String,
    /// A variable, to see its pods and buffers
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Number of the earlier version, or a ref
    pub(crate) before: String,
    /// Number of the later version, or a ref
    #[arg(default_value = "main")]
    pub(crate) after: String,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Check the tables and whether every blob has a place, without reading pods and buffers
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CatArguments {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Digest of the blob, 34 hexadecimal characters, as `show` prints it
    pub(crate) digest: String,
    /// The digest is that of a buffer: write its content
    #[arg(long)]
    pub(crate) buffer: bool,
}

impl Command {
    pub(crate) const fn common(&self) -> &Common {
        match self {
            Command::Log(arguments) => &arguments.common,
            Command::Show(arguments) => &arguments.common,
            Command::Diff(arguments) => &arguments.common,
            Command::Verify(arguments) => &arguments.common,
            Command::Cat(arguments) => &arguments.common,
        }
    }
}
