//! Tables of scores in the documents: what a study's `summary.md` says, not typed over by hand.
//!
//! A table that follows `<!-- scores of STUDY -->`, or `<!-- scores of STUDY with TEXT -->` for the entries
//! whose label has TEXT, is made from `studies/results/STUDY/summary.md`; a `, E` or `, T` at the end leaves
//! only rows of that measure. One that follows `<!-- table N of STUDY -->` is the N-th of that file, as it
//! stands there.

const HEAD: &str = "| task | steps | measure | mean | 95 % interval of the mean | IQM | anchor | difference | verdict |\n|---|--:|:-:|--:|:-:|--:|--:|--:|---|\n";
/// Columns of a summary's table of entries that go into a document.
const COLUMNS: [usize; 9] = [0, 1, 3, 4, 6, 7, 10, 11, 12];
const SUMMARY_COLUMNS: usize = 13;

/// A document's tables of scores beside the summaries they come from.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Scores {
    /// What `--fix` cannot mend.
    pub(crate) problems: Vec<String>,
    /// Tables that say something else than their study.
    pub(crate) stale: Vec<String>,
    /// The document with the tables of today.
    pub(crate) mended: String,
}

/// Compares the tables of scores in `text`, which is at `path`, with the summaries that `read` finds.
pub(crate) fn check(path: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Scores {
    let mut scores = Scores::default();
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((i, line)) = lines.next() {
        scores.mended.push_str(line);
        let asked = line.trim().strip_suffix(" -->").and_then(|l| l.strip_prefix("<!-- "));
        let Some((study, part)) = asked.and_then(Part::of) else { continue };
        let at = format!("{path}:{}", i + 1);
        let mut table = String::new();
        while let Some((_, row)) = lines.next_if(|(_, l)| l.starts_with('|')) {
            table.push_str(row);
        }
        let file = format!("studies/results/{study}/summary.md");
        match read(&file).map(|summary| part.table(&summary)) {
            None => scores.problems.push(format!("{at}: there is no {file}")),
            Some(right) if right.is_empty() => scores.problems.push(format!("{at}: no {part} in {file}")),
            Some(right) => {
                if table != right {
                    scores.stale.push(format!("{at}: the table differs from {file}"));
                }
                table = right;
            }
        }
        scores.mended.push_str(&table);
    }
    scores
}

/// What of a summary is shown.
#[derive(Debug)]
enum Part<'a> {
    Scores { with: &'a str, measure: &'a str },
    Table(usize),
}

impl<'a> Part<'a> {
    /// The study and the part that a remark asks for, if it asks for one.
    fn of(remark: &'a str) -> Option<(&'a str, Self)> {
        if let Some(asked) = remark.strip_prefix("table ") {
            let (number, study) = asked.split_once(" of ")?;
            return Some((study, Self::Table(number.parse().ok()?)));
        }
        let asked = remark.strip_prefix("scores of ")?;
        let (asked, measure) = asked.rsplit_once(", ").unwrap_or((asked, ""));
        let (study, with) = asked.split_once(" with ").unwrap_or((asked, ""));
        Some((study, Self::Scores { with, measure }))
    }
    /// The table for a document; empty when the summary has none.
    fn table(&self, summary: &str) -> String {
        match self {
            Self::Scores { with, measure } => {
                let rows = rows(summary, with, measure);
                if rows.is_empty() { rows } else { format!("{HEAD}{rows}") }
            }
            Self::Table(number) => {
                let mut tables = vec![String::new()];
                for line in summary.lines() {
                    if line.starts_with('|') {
                        tables.last_mut().expect("never empty").extend([line, "\n"]);
                    } else if !tables.last().is_some_and(String::is_empty) {
                        tables.push(String::new());
                    }
                }
                number.checked_sub(1).and_then(|i| tables.get(i)).cloned().unwrap_or_default()
            }
        }
    }
}

impl std::fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scores { with, .. } => write!(f, "entry with `{with}`"),
            Self::Table(number) => write!(f, "table {number}"),
        }
    }
}

/// The rows for a document, of the entries whose label has `with` and whose measure begins with `measure`.
fn rows(summary: &str, with: &str, measure: &str) -> String {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    summary
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(cells)
        .filter(|c| {
            c.len() == SUMMARY_COLUMNS && c[0] != "entry" && c[0].contains(with) && c[3].starts_with(measure)
        })
        .map(|c| format!("| {} |\n", COLUMNS.map(|i| c[i].as_str()).join(" | ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "| entry | steps | seeds | measure | mean | std | i | IQM | j | min | anchor | difference | verdict |\n|---|--:|--:|:-:|--:|--:|:-:|--:|:-:|--:|--:|--:|---|\n| A td | 10 | 2 | E | 1.5 | 0 | [1, 2] | 1.4 | [1, 2] | 1 | 2 | -0.5 | short |\n| B nac | 10 | 2 | T | 3 | 0 | [3, 3] | 3 | [3, 3] | 3 | – | – | – |\n\n| x | y |\n";

    fn read(file: &str) -> Option<String> {
        (file == "studies/results/s/summary.md").then(|| SUMMARY.to_owned())
    }

    #[test]
    fn a_table_is_made_from_the_summary() {
        let text = "before\n<!-- scores of s with td -->\n| old |\n| 1 |\n\nafter\n";
        let got = check("page.md", text, read);
        let row = "| A td | 10 | E | 1.5 | [1, 2] | 1.4 | 2 | -0.5 | short |\n";
        assert_eq!(got.mended, format!("before\n<!-- scores of s with td -->\n{HEAD}{row}\nafter\n"));
        assert_eq!(got.stale, ["page.md:2: the table differs from studies/results/s/summary.md"]);
        let again = check("page.md", &got.mended, read);
        assert_eq!((again.stale.len(), again.problems.len(), &again.mended), (0, 0, &got.mended));
        let only = check("page.md", "<!-- scores of s, T -->\n", read).mended;
        assert!(!only.contains("| A td |") && only.contains("| B nac |"), "{only}");
        let all = check("page.md", "<!-- scores of s -->\n", read).mended;
        assert!(
            all.contains("| A td |") && all.contains("| B nac | 10 | T | 3 | [3, 3] | 3 | – | – | – |"),
            "{all}"
        );
    }

    #[test]
    fn a_table_is_taken_as_it_stands() {
        let got = check("page.md", "<!-- table 2 of s -->\n| old |\n", read);
        assert_eq!(got.mended, "<!-- table 2 of s -->\n| x | y |\n");
        let got = check("page.md", "<!-- table 3 of s -->\n<!-- table 0 of s -->\n", read);
        assert_eq!(got.problems.len(), 2, "{:?}", got.problems);
        assert_eq!(got.problems[0], "page.md:1: no table 3 in studies/results/s/summary.md");
    }

    #[test]
    fn what_is_not_there_is_named_and_the_table_left() {
        let text = "<!-- scores of t -->\n| old |\n<!-- scores of s with ppo -->\n";
        let got = check("page.md", text, read);
        assert_eq!(got.mended, text);
        assert_eq!(
            got.problems,
            [
                "page.md:1: there is no studies/results/t/summary.md",
                "page.md:3: no entry with `ppo` in studies/results/s/summary.md"
            ]
        );
    }
}
