//! x
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {}
pub(crate) async fn run(_args: DevArgs) -> anyhow::Result<()> {
    Ok(())
}
