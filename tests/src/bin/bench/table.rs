//! The table: one row for each figure, with its floor and aim beside it.

/// One measured figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) work: String,
    /// Ours.
    pub(crate) ours: String,
    /// The peer's, or empty.
    pub(crate) peer: String,
    /// The figure to compare with floor and aim.
    pub(crate) figure: String,
    /// The floor.
    pub(crate) floor: &'static str,
    /// The aim.
    pub(crate) aim: &'static str,
}

/// Prints the rows as a table in Markdown.
pub(crate) fn print(rows: &[Row]) {
    println!("| work | Godwit | beside it | figure | floor | aim |\n|---|---|---|---|---|---|");
    for Row { work, ours, peer, figure, floor, aim } in rows {
        println!("| {work} | {ours} | {peer} | **{figure}** | {floor} | {aim} |");
    }
}

/// The value in the middle; of an even number the lower of the two. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The median of the pairs' ratios.
pub(crate) fn median_ratio(ours: &[f64], peers: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(peers).map(|(ours, peer)| ours / peer).collect();
    median(&ratios)
}

/// A rate, in thousands a second.
pub(crate) fn thousands(rate: f64) -> String {
    format!("{:.1} k/s", rate / 1000.0)
}

/// KiB as MB, the unit of the floors.
pub(crate) fn megabytes(kib: u64) -> String {
    format!("{:.1} MB", kib as f64 * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_pairs() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median_ratio(&[2.0, 9.0, 4.0], &[1.0, 3.0, 1.0]) - 3.0).abs() < 1e-9);
    }
}
