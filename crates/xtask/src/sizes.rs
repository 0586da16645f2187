//! How much a browser has to download.

use std::io::{Read, Write};

use anyhow::{Result, bail};

/// What a page that imports the package may load at once, after brotli, in bytes. The package's README names it.
pub const BUDGET_BYTES: usize = 83_000;

/// One file's size, as it is and as servers send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    pub name: String,
    pub raw_bytes: usize,
    pub gzip_bytes: usize,
    pub brotli_bytes: usize,
}

impl Weight {
    pub fn of(name: &str, content: &[u8]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            raw_bytes: content.len(),
            gzip_bytes: gzip_bytes(content)?,
            brotli_bytes: brotli_bytes(content)?,
        })
    }

    fn sum(weights: &[Self]) -> Self {
        Self {
            name: "total".to_owned(),
            raw_bytes: weights.iter().map(|weight| weight.raw_bytes).sum(),
            gzip_bytes: weights.iter().map(|weight| weight.gzip_bytes).sum(),
            brotli_bytes: weights.iter().map(|weight| weight.brotli_bytes).sum(),
        }
    }
}

/// The weights and their sum as lines of text.
pub fn table(weights: &[Weight]) -> String {
    let mut lines = vec![format!("{:<34}{:>10}{:>10}{:>10}", "bytes", "raw", "gzip 9", "brotli 11")];
    for weight in weights.iter().chain([&Weight::sum(weights)]) {
        lines.push(format!(
            "{:<34}{:>10}{:>10}{:>10}",
            weight.name, weight.raw_bytes, weight.gzip_bytes, weight.brotli_bytes
        ));
    }
    lines.join("\n")
}

/// Fails where the package outgrew its budget.
pub fn check_budget(weights: &[Weight]) -> Result<()> {
    let total = Weight::sum(weights).brotli_bytes;
    if total > BUDGET_BYTES {
        bail!(
            "the package weighs {total} bytes after brotli, {} over its budget of {BUDGET_BYTES}",
            total - BUDGET_BYTES
        );
    }
    Ok(())
}

fn gzip_bytes(content: &[u8]) -> Result<usize> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?.len())
}

fn brotli_bytes(content: &[u8]) -> Result<usize> {
    const BUFFER_BYTES: usize = 64 * 1024;
    const QUALITY: u32 = 11;
    const WINDOW_BITS: u32 = 22;
    let mut compressed = Vec::new();
    brotli::CompressorReader::new(content, BUFFER_BYTES, QUALITY, WINDOW_BITS).read_to_end(&mut compressed)?;
    Ok(compressed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(brotli_bytes: usize) -> Weight {
        Weight { name: "file".to_owned(), raw_bytes: 10, gzip_bytes: 5, brotli_bytes }
    }

    #[test]
    fn compression_shrinks_repetition() {
        let weight = Weight::of("repeated", &[b'a'; 10_000]).unwrap();
        assert_eq!(weight.raw_bytes, 10_000);
        assert!(weight.gzip_bytes < 100);
        assert!(weight.brotli_bytes < 100);
    }

    #[test]
    fn the_budget_is_for_all_files_together() {
        let half = BUDGET_BYTES / 2;
        assert!(check_budget(&[weight(half), weight(BUDGET_BYTES - half)]).is_ok());
        let error = check_budget(&[weight(half), weight(BUDGET_BYTES - half + 1)]).unwrap_err().to_string();
        assert!(error.contains("1 over its budget"), "{error}");
    }

    #[test]
    fn the_readme_names_the_budget() {
        let readme = include_str!("../../wasm-client/js/README.md");
        assert!(readme.contains(&format!("{} kB or less", BUDGET_BYTES / 1000)));
    }

    #[test]
    fn the_table_ends_with_the_sum() {
        let table = table(&[weight(7), weight(8)]);
        assert!(table.lines().last().unwrap().starts_with("total"));
        assert!(table.lines().last().unwrap().ends_with("15"));
    }
}
