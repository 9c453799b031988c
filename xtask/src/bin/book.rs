//! Renders the book with mdBook, as a library so that nothing has to be installed, and checks what it made:
//! `book build`. `book preprocess` is the step of book.toml that turns mathematics into MathML, leads links
//! to code to the line where the code is today, and shows the items that a page asks for.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "talks to mdBook, or to the terminal")]

use anyhow::{Context, Result, bail};
use math_core::{LatexToMathML, MathCoreConfig, MathDisplay};
use mdbook_driver::MDBook;
use mdbook_driver::book::Book;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use xtask::pages::{Link, normal};
use xtask::{command, items, pages};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match std::env::args().skip(1).collect::<Vec<_>>().join(" ").as_str() {
        "build" => build(),
        // mdBook asks whether there is something to do for a renderer; there always is.
        asked if asked.starts_with("preprocess supports") => Ok(()),
        "preprocess" => {
            let (context, mut book) = mdbook_preprocessor::parse_input(std::io::stdin())?;
            let repository = context.config.get::<String>("output.html.git-repository-url")?;
            preprocess(&mut book, &repository.unwrap_or_default())?;
            serde_json::to_writer(std::io::stdout(), &book)?;
            Ok(())
        }
        _ => bail!("usage: book build | book preprocess"),
    }
}

/// Renders the book; a warning is an error, and so is a link of the rendered pages that leads nowhere.
fn build() -> Result<()> {
    tracing::subscriber::set_global_default(Warnings)?;
    let mut book = MDBook::load(command::root().join("book"))?;
    // The same step, without asking cargo to start this program.
    let this = std::env::current_exe()?;
    book.config.set("preprocessor.pgrad.command", format!("{} preprocess", this.display()))?;
    let book = MDBook::load_with_config(&book.root, book.config)?;
    let folder = normal(&book.build_dir_for("html"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    book.build()?;
    let mut found = WARNINGS.lock().map(|all| all.clone()).unwrap_or_default();
    found.extend(broken_links(&folder)?);
    for line in &found {
        println!("{line}");
    }
    if !found.is_empty() {
        bail!("{} things in the rendered book are wrong", found.len());
    }
    println!("the book is rendered in {}", folder.join("index.html").display());
    Ok(())
}

/// Changes every page.
fn preprocess(book: &mut Book, repository: &str) -> Result<()> {
    let tex = LatexToMathML::new(MathCoreConfig::default()).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let mut problems = Vec::new();
    book.for_each_chapter_mut(|chapter| {
        let Some(path) = &chapter.source_path else { return };
        let page =
            Page { path: &Path::new("book/src").join(path), text: &chapter.content, repository, tex: &tex };
        match page.rendered() {
            Ok(text) => chapter.content = text,
            Err(why) => problems.push(format!("{why:#}")),
        }
    });
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

struct Page<'a> {
    path: &'a Path,
    text: &'a str,
    repository: &'a str,
    tex: &'a LatexToMathML,
}

impl Page<'_> {
    /// The page as mdBook is to see it.
    fn rendered(&self) -> Result<String> {
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_MATH;
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        let (mut link, mut shown, mut fenced) = (None, None, false);
        for (event, range) in Parser::new_ext(self.text, options).into_offset_iter() {
            let at =
                || format!("{}:{}", self.path.display(), 1 + self.text[..range.start].matches('\n').count());
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind))) if &*kind == "math" => {
                    let inner = self.text[range.clone()].trim_start_matches("```math").trim_end_matches('`');
                    let math = self.math(inner, MathDisplay::Block).with_context(at)?;
                    edits.push((range, format!("{math}\n")));
                    fenced = true;
                }
                Event::Start(Tag::CodeBlock(_)) => fenced = true,
                Event::End(TagEnd::CodeBlock) => fenced = false,
                Event::InlineMath(math) => {
                    // Where Markdown is read before mathematics, a backslash before a sign is lost.
                    if math
                        .split('\\')
                        .skip(1)
                        .any(|rest| rest.starts_with(|c: char| c.is_ascii_punctuation()))
                    {
                        bail!("{}: no backslash before a sign inside `$...$`: ${math}$", at());
                    }
                    edits.push((range.clone(), self.math(&math, MathDisplay::Inline).with_context(at)?));
                }
                Event::DisplayMath(_) => {
                    bail!("{}: formulas of their own stand between ```math and ```", at())
                }
                Event::Text(text) if !fenced && text.contains('$') => bail!("{}: a lone $ in: {text}", at()),
                Event::Start(Tag::Link { dest_url, .. }) => {
                    let source = &self.text[range.clone()];
                    link = pages::links(source).pop();
                    if let Some(line) = link.as_ref().and_then(|l| self.in_repository(l)) {
                        let old = format!("]({dest_url})");
                        edits.push((range.clone(), source.replace(&old, &format!("]({line})"))));
                    }
                }
                Event::InlineHtml(html) if &*html == "<!-- code -->" => {
                    shown = Some(self.code(link.take()).with_context(at)?);
                }
                Event::End(TagEnd::Paragraph) => {
                    if let Some(code) = shown.take() {
                        edits.push((range.end..range.end, format!("\n```rust,ignore\n{code}```\n")));
                    }
                }
                _ => {}
            }
        }
        let (mut out, mut done) = (String::new(), 0);
        for (range, new) in edits {
            out.push_str(
                self.text.get(done..range.start).with_context(|| format!("a link inside a link: {new}"))?,
            );
            out.push_str(&new);
            done = range.end;
        }
        Ok(out + &self.text[done..])
    }

    /// MathML that Markdown leaves alone.
    fn math(&self, tex: &str, display: MathDisplay) -> Result<String> {
        let math = self.tex.convert_with_local_counter(tex.trim(), display);
        let math = math.map_err(|e| anyhow::anyhow!("{e:?} in {}", tex.trim()))?;
        let special = ['*', '_', '`', '[', ']', '\\', '$', '|', '~', '\''];
        let (mut out, mut tag) = (String::new(), false);
        for c in math.chars() {
            tag = (tag || c == '<') && c != '>';
            if !tag && special.contains(&c) { out += &format!("&#{};", u32::from(c)) } else { out.push(c) }
        }
        Ok(out)
    }

    /// The file that a link of this page leads to, from the root of the repository.
    fn file(&self, link: &Link<'_>) -> PathBuf {
        normal(&self.path.with_file_name("").join(link.target.split('#').next().unwrap_or_default()))
    }

    /// Where a link to a file that is no part of the book leads.
    fn in_repository(&self, link: &Link<'_>) -> Option<String> {
        let file = self.file(link);
        if link.target.contains(':') || link.target.starts_with('#') || file.starts_with("book/src") {
            return None;
        }
        let source = std::fs::read_to_string(command::root().join(&file)).unwrap_or_default();
        let line = link.code().and_then(|code| items::line_of(&source, code));
        let line = line.map(|line| format!("#L{}", line + 1));
        let anchor = link.target.find('#').map(|i| link.target[i..].to_owned());
        Some(format!(
            "{}/blob/main/{}{}",
            self.repository,
            file.display(),
            line.or(anchor).unwrap_or_default()
        ))
    }

    /// The item that a link names, or the whole file when it names none.
    fn code(&self, link: Option<Link<'_>>) -> Result<String> {
        let link = link.context("no link before `<!-- code -->`")?;
        let file = self.file(&link);
        let source = std::fs::read_to_string(command::root().join(&file))
            .with_context(|| file.display().to_string())?;
        match link.code() {
            Some(name) => {
                items::text_of(&source, name).with_context(|| format!("{}: no `{name}`", file.display()))
            }
            None => Ok(source),
        }
    }
}

/// The links between the rendered pages that lead nowhere.
fn broken_links(folder: &Path) -> Result<BTreeSet<String>> {
    let mut pages = BTreeMap::new();
    for path in pages::files(folder, "html")? {
        pages.insert(path.clone(), std::fs::read_to_string(&path)?);
    }
    let anchors = |page: &str| values(page, " id=\"").map(str::to_owned).collect::<BTreeSet<_>>();
    let anchors: BTreeMap<_, _> = pages.iter().map(|(path, page)| (path.clone(), anchors(page))).collect();
    let mut found = BTreeSet::new();
    for (path, page) in &pages {
        for target in values(page, " href=\"").chain(values(page, " src=\"")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.contains(':') || target.starts_with("//") || path.ends_with("404.html") {
                continue;
            }
            let file =
                if file.is_empty() { path.clone() } else { normal(&path.with_file_name("").join(file)) };
            let there =
                file.exists() && (anchor.is_empty() || anchors.get(&file).is_none_or(|a| a.contains(anchor)));
            if !there {
                found.insert(format!("{}: the link to `{target}` leads nowhere", path.display()));
            }
        }
    }
    Ok(found)
}

/// What stands between `before` and the next quotation mark.
fn values<'a>(page: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Takes down what mdBook warns of.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, of: &tracing::Metadata<'_>) -> bool {
        *of.level() <= tracing::Level::WARN
    }
    fn event(&self, event: &tracing::Event<'_>) {
        let mut note = |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "message"
                && let Ok(mut all) = WARNINGS.lock()
            {
                all.push(format!("{value:?}"));
            }
        };
        event.record(&mut note);
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
