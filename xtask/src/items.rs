//! Finds code by its name, in sources that rustfmt has laid out.

/// Words that a definition begins with.
const DEFINES: [&str; 9] =
    ["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "macro_rules!"];

/// The line, from 0, of what a document calls `name`: the definition of that item (`gae`), of that member of
/// a type or trait (`Ppo::iterate`), or else the first line of code that has this text (`returns::gae`, `ret
/// * gamma`).
pub fn line_of(source: &str, name: &str) -> Option<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let whole = 0..lines.len();
    if let Some((kind, member)) =
        name.split_once("::").filter(|(kind, _)| kind.starts_with(char::is_uppercase))
    {
        let blocks = || whole.clone().filter(|&i| opens(lines[i], kind)).map(|i| i + 1..end_of(&lines, i));
        let item = blocks().flatten().find(|&i| defines(lines[i], member));
        let found = item.or_else(|| blocks().flatten().find(|&i| is_field(lines[i], member)));
        if found.is_some() {
            return found;
        }
    }
    let code = |line: &str| !line.trim_start().starts_with("//");
    let item = whole.clone().find(|&i| defines(lines[i], name));
    item.or_else(|| whole.clone().find(|&i| code(lines[i]) && has(lines[i], name)))
}

/// The text of the item that [`line_of`] finds, without the indentation of its first line.
pub fn text_of(source: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().collect();
    let first = line_of(source, name)?;
    let margin = indentation(lines[first]);
    let item = &lines[first..=end_of(&lines, first).min(lines.len() - 1)];
    Some(item.iter().map(|l| format!("{}\n", l.get(margin..).unwrap_or_default())).collect())
}

/// The last line of the block that `first` opens, or `first` when it opens none.
fn end_of(lines: &[&str], first: usize) -> usize {
    let margin = indentation(lines[first]);
    if lines[first].ends_with([';', '}', ',']) {
        return first;
    }
    let closes = |line: &str| indentation(line) == margin && line.trim_start().starts_with('}');
    (first + 1..lines.len()).find(|&i| closes(lines[i])).unwrap_or(first)
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whether `text` stands in the line, not as a part of longer names.
fn has(line: &str, text: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(text).any(|(i, _)| {
        let before = line[..i].ends_with(in_name) && text.starts_with(in_name);
        let after = line[i + text.len()..].starts_with(in_name) && text.ends_with(in_name);
        !before && !after
    })
}

/// Whether the line begins the definition of `name`.
fn defines(line: &str, name: &str) -> bool {
    let words = || line.split_whitespace().skip_while(|w| w.starts_with("pub"));
    let modifiers = ["const", "unsafe", "async"];
    let pair = words().zip(words().skip(1)).find(|(a, b)| !(modifiers.contains(a) && DEFINES.contains(b)));
    let named = |word: &str| {
        let rest = word.strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    pair.is_some_and(|(keyword, word)| DEFINES.contains(&keyword) && named(word))
}

/// Whether the line is one of a field or variant of that name.
fn is_field(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
    let rest = line.strip_prefix(name);
    rest.is_some_and(|r| r.starts_with([':', ',', '(']) && !r.starts_with("::") || r.starts_with(" {"))
}

/// Whether the line begins a block whose members are those of `kind`.
fn opens(line: &str, kind: &str) -> bool {
    let line = line.trim_start();
    let block = ["impl", "trait", "struct", "enum"].iter().any(|word| {
        let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub ")).unwrap_or(line);
        line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '<']))
    });
    block && line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
//! first and go in words
pub const fn first() {
    second();
}
pub struct A<R> {
    pub field: R,
}
impl<R: B> Trait for A<R> {
    fn go(&self) -> u8 {
        let field = 1;
        if field == 2 {
            3
        }
    }
}
impl Other {
    fn go(&self) -> u8 { 4 }
    fn first(self) {}
}
pub fn second(
    x: u8,
) {
    x.go();
}
";

    #[test]
    fn items_are_found_by_name() {
        for (name, line) in [
            ("first", 1),
            ("A", 4),
            ("A::field", 5),
            ("A::go", 8),
            ("Other::go", 16),
            ("Other::first", 17),
            ("second", 19),
            ("x.go()", 22),
        ] {
            assert_eq!(line_of(SOURCE, name), Some(line), "{name}");
        }
        for name in ["third", "Third::go", "A::first", "A::second", "in words", "x.g"] {
            assert_eq!(line_of(SOURCE, name), None, "{name}");
        }
    }

    #[test]
    fn the_text_of_an_item_is_all_of_it() {
        let go = "fn go(&self) -> u8 {\n    let field = 1;\n    if field == 2 {\n        3\n    }\n}\n";
        assert_eq!(text_of(SOURCE, "A::go").as_deref(), Some(go));
        assert_eq!(text_of(SOURCE, "Other::go").as_deref(), Some("fn go(&self) -> u8 { 4 }\n"));
        assert_eq!(
            text_of(SOURCE, "second").as_deref(),
            Some("pub fn second(\n    x: u8,\n) {\n    x.go();\n}\n")
        );
        assert_eq!(text_of(SOURCE, "third"), None);
    }
}
