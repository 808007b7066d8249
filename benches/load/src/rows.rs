//! The rows of the table, one module for those that share a setup.

pub(crate) mod calls;
pub(crate) mod growth;
pub(crate) mod lists;
pub(crate) mod observed;
pub(crate) mod sessions;
pub(crate) mod start;
pub(crate) mod streams;

use anyhow::{Context as _, Result};

use crate::client::{self, Target};

/// The public names of a subject's tools that are its backends' own `name`, whatever stands before it.
async fn named(target: &Target, name: &str) -> Result<Vec<String>> {
    let mut names = client::tools(target).await.context("tools/list")?;
    names.retain(|public| public.ends_with(name));
    Ok(names)
}
