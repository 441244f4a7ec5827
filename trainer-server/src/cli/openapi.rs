//! `freshet openapi`: prints the document of the API.

use clap::Args;

use crate::http::{Address, document};

/// Flags of `freshet openapi`.
#[derive(Debug, Clone, Args)]
pub struct OpenapiArgs {
    /// The address whose document it is
    #[arg(long, value_enum, default_value_t = Address::Public)]
    pub address: Address,
}

/// Prints it.
///
/// # Errors
/// It cannot be written as JSON.
pub fn run(args: &OpenapiArgs) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&document(args.address))?);
    Ok(())
}
