//! Summaries that were stored: what they say of their numbers, said again by today's rules.

use crate::measured;
use crate::report::{EntryResult, LEGEND, Score, score_json, table};
use crate::{Anchor, Bound, Evaluated, Measure, Quantity};
use serde_json::{Value, json};

/// The table and the JSON of a stored summary with the verdicts of this program. What was measured stays;
/// nothing is run. None when it is no summary.
#[must_use]
pub fn retold(markdown: &str, summary: &Value) -> Option<(String, Value)> {
    let mut summary = summary.clone();
    if let Some(quantities) = summary.get_mut("quantities") {
        let table = measured_table(quantities.as_array_mut()?)?;
        return Some((with_table(markdown, "| quantity |", &table)?, summary));
    }
    let entries = summary.get_mut("entries")?.as_array_mut()?;
    let mut results = Vec::new();
    for entry in entries {
        let result = entry_of(entry)?;
        for (key, score) in [("E", &result.e), ("T", &result.t)] {
            entry[key] = score_json(score);
        }
        results.push(result);
    }
    let mut text = with_table(markdown, "| entry |", &table(&results))?;
    for start in ["Beaten: ", "Difference: "] {
        text = text
            .lines()
            .map(|l| if l.starts_with(start) { LEGEND } else { l })
            .collect::<Vec<_>>()
            .join("\n")
            + "\n";
    }
    Some((text, summary))
}

/// The text with another table in place of the one whose first line begins with `head`.
fn with_table(text: &str, head: &str, table: &str) -> Option<String> {
    let begin = text.find(head)?;
    let rest = &text[begin..];
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    Some(format!("{}{table}{}", &text[..begin], &rest[end..]))
}

fn entry_of(entry: &Value) -> Option<EntryResult> {
    let text = |key: &str| Some(entry.get(key)?.as_str()?.to_owned());
    let score = |measure: Measure| {
        let score = entry.get(measure.to_string())?;
        let values = score["values"].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()?;
        let anchors = score["anchors"].as_array()?;
        let complete = anchors.iter().all(|a| !a["verdict"].is_null());
        let anchors = anchors.iter().map(|a| {
            Some(Anchor {
                measure,
                value: a["value"].as_f64()?,
                standard_error: a["standard_error"].as_f64()?,
                at_most: a["at_most"].as_bool().unwrap_or(false),
                source: a["source"].as_str()?.to_owned(),
            })
        });
        let anchors = anchors.collect::<Option<Vec<_>>>()?;
        Some(Score::new(measure, values, anchors.iter(), complete))
    };
    let stochastic = entry["evaluation"] == "stochastic";
    Some(EntryResult {
        label: text("entry")?,
        env: text("env")?,
        algo: text("algo")?,
        steps: entry["steps"].as_u64()?,
        iterations: entry["iterations"].as_u64(),
        evaluated: if stochastic { Evaluated::Stochastic } else { Evaluated::Greedy },
        e: score(Measure::E)?,
        t: score(Measure::T)?,
    })
}

/// The table of what was measured; the verdicts in the JSON are said again.
fn measured_table(quantities: &mut [Value]) -> Option<String> {
    let (mut all, mut bounds) = (Vec::new(), Vec::new());
    for q in quantities {
        let name = q["quantity"].as_str()?.to_owned();
        let number = |x: &Value| x.as_f64().unwrap_or(f64::INFINITY);
        let value = number(&q["value"]);
        for a in q["anchors"].as_array_mut()? {
            let bound = Bound {
                quantity: name.clone(),
                value: number(&a["value"]),
                at_least: a["at_least"].as_f64(),
                at_most: a["at_most"].as_f64(),
                source: a["source"].as_str()?.to_owned(),
            };
            a["verdict"] = json!(measured::verdict(&bound, value));
            bounds.push(bound);
        }
        let standard_error = q["standard_error"].as_f64();
        all.push(Quantity { name, value, exact: q["exact"].as_bool()?, standard_error });
    }
    Some(measured::table(&all, &bounds))
}
