//! The command palette: every setting and every move by name, with completion. Lessons and sessions speak the same language.

use std::path::PathBuf;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyEvent};

use super::actions::{act, settled, show};
use crate::engine::command::{BitWidth, GroupCount, Method, SoftmaxShape};
use crate::model::{Site, SitePattern};
use crate::quant::{Arithmetic, GeluShape, Preset, Rounding, Scope, WeightScales};
use crate::tui::app::App;
use crate::tui::choice::{Beside, Map, Overlay, View};
use crate::tui::glossary;
use crate::tui::keys::Action;
use crate::tui::message::Effect;
use crate::tui::objects;
use crate::tui::theme::Theme;

/// A command: its name, what may follow, and what it does.
pub struct Command {
    /// The first word.
    pub name: &'static str,
    /// What follows, for people.
    pub takes: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What the next word may be, where that is a list.
    values: fn(&App) -> Vec<String>,
}

const fn none(_: &App) -> Vec<String> {
    Vec::new()
}

fn bits(_: &App) -> Vec<String> {
    BitWidth::ALL.iter().map(ToString::to_string).collect()
}

fn names<T>(all: impl IntoIterator<Item = T>, name: fn(T) -> &'static str) -> Vec<String> {
    all.into_iter().map(|one| name(one).to_string()).collect()
}

fn sites(app: &App) -> Vec<String> {
    app.info.sites.iter().map(ToString::to_string).collect()
}

const fn command(name: &'static str, takes: &'static str, help: &'static str, values: fn(&App) -> Vec<String>) -> Command {
    Command { name, takes, help, values }
}

/// All commands.
pub const COMMANDS: &[Command] = &[
    command("bits", "N", "bits of weights, activations and softmax", bits),
    command("wbits", "N", "bits of weights", bits),
    command("abits", "N", "bits of activations and softmax", bits),
    command("sbits", "N", "bits of the softmax", bits),
    command("groups", "N", "groups of channels and of softmax rows", none),
    command("row-groups", "N", "groups of softmax rows", none),
    command("method", "NAME", "how values share quantizers", |_| names(Method::ALL, Method::name)),
    command("weights", "NAME", "how weights become codes", |_| names(Rounding::ALL, Rounding::name)),
    command("weight-scales", "SCALES", "what of a weight shares a scale", |_| {
        ["channel", "block=32", "block=16", "mxfp4", "mxint8", "nvfp4", "fp8-e4m3"].map(String::from).to_vec()
    }),
    command("preset", "NAME", "what the first and the last layer do", |_| names(Preset::ALL, Preset::name)),
    command("softmax", "NAME", "how the softmax is quantized", |_| names(SoftmaxShape::ALL, SoftmaxShape::name)),
    command("gelu", "NAME", "how the values after GELU are quantized", |_| names(GeluShape::ALL, GeluShape::name)),
    command("scope", "NAME", "how much of a detector is quantized", |_| names(Scope::ALL, Scope::name)),
    command("arithmetic", "NAME", "what products are computed in", |_| names(Arithmetic::ALL, Arithmetic::name)),
    command(
        "site",
        "SITE [abits N] [wbits N] [groups N] [float]",
        "select a site, or give the sites of a pattern something of their own",
        sites,
    ),
    command("channel", "N", "select a channel or softmax row", none),
    command("token", "N", "select a token", none),
    command("head", "N", "select a head", none),
    command("map", "NAME", "what the attention map shows", |_| names(Map::ALL, Map::name)),
    command("left", "NAME", "what stands left of the attention map", |_| names(Beside::ALL, Beside::name)),
    command("threshold", "P", "probability from which on objects are shown", none),
    command("object", "N", "select an object, from 1", none),
    command("overlay", "NAME", "boxes over the picture of a detector", |_| names(Overlay::ALL, Overlay::name)),
    command("explain", "WORD", "what a word on the screen means", |_| {
        glossary::TERMS.iter().map(|(term, _)| (*term).to_string()).collect()
    }),
    command("image", "N", "show an image of the set, from 1", none),
    command("compare", "N|off", "compare the groups with those of another image", |_| vec!["off".into()]),
    command("view", "NAME", "open a view", |_| View::all().map(|view| view.name().to_string()).collect()),
    command("open", "PATH...", "open more images", none),
    command("pin", "", "pin this result as A", none),
    command("undo", "", "undo the last change of settings", none),
    command("redo", "", "redo", none),
    command("reset", "", "the settings of the start", none),
    command("save", "FILE", "save the session: run, pinned result, view; save! writes over a file", none),
    command("export", "", "write the screen and its report", none),
    command("command", "", "copy the command line that gives this run", none),
    command("theme", "NAME", "colours", |app| names(Theme::ALL.iter().chain(app.look.own).copied(), Theme::name)),
    command("quit", "", "leave", none),
];

/// Carries out a line; what was wrong with it, in a sentence.
///
/// # Errors
/// When the command or its value is not known.
pub fn run(app: &mut App, line: &str) -> Result<Vec<Effect>, String> {
    let words = shlex::split(line.trim()).ok_or("a quote is not closed")?;
    let Some((name, rest)) = words.split_first() else { return Ok(Vec::new()) };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let before = (app.settings.clone(), app.picture, app.compare);
    let one = || match rest.as_slice() {
        [one] => Ok(*one),
        _ => Err(format!("{name} takes {}", COMMANDS.iter().find(|c| c.name == name).map_or("nothing", |c| c.takes))),
    };
    let settings = &mut app.settings;
    match name.as_str() {
        "bits" => {
            let bits = parse(one()?)?;
            (settings.wbits, settings.abits, settings.sbits) = (bits, bits, bits);
        }
        "wbits" => settings.wbits = parse(one()?)?,
        "abits" => {
            let bits = parse(one()?)?;
            (settings.abits, settings.sbits) = (bits, bits);
        }
        "sbits" => settings.sbits = parse(one()?)?,
        "groups" => {
            let count = parse(one()?)?;
            *settings = settings.uniform(count);
        }
        "row-groups" => settings.row_groups = parse(one()?)?,
        "method" => settings.method = parse(one()?)?,
        "weights" => settings.weights = parse(one()?)?,
        "weight-scales" => settings.weight_scales = parse::<WeightScales>(one()?)?,
        "preset" => settings.preset = parse(one()?)?,
        "softmax" => settings.softmax = parse(one()?)?,
        "gelu" => settings.gelu = parse(one()?)?,
        "scope" => settings.scope = parse(one()?)?,
        "arithmetic" => settings.arithmetic = parse(one()?)?,
        "site" => site(app, &rest)?,
        "channel" => app.channel = number(one()?, app.site_report().map_or(usize::MAX, |r| r.ranges.min.len()), 0)?,
        "token" => app.token = number(one()?, app.attention().map_or(usize::MAX, |m| m.layout.tokens()), 0)?,
        "head" => app.head = number(one()?, app.attention().map_or(usize::MAX, |m| m.heads), 0)?,
        "map" => app.map = listed(one()?, &Map::ALL, Map::name)?,
        "left" => app.beside = listed(one()?, &Beside::ALL, Beside::name)?,
        "threshold" => {
            let wanted = one()?.parse().ok().filter(|p: &f64| (0.01..=0.99).contains(p));
            app.threshold = wanted.ok_or("threshold takes a probability from 0.01 to 0.99")?;
        }
        "object" => {
            let count = objects::of(app).map_or(usize::MAX, |found| found.objects.len());
            app.object = number(one()?, count, 1)?;
        }
        "overlay" => app.overlay = listed(one()?, &Overlay::ALL, Overlay::name)?,
        "explain" => {
            let word = rest.join(" ");
            glossary::explain(&word).ok_or_else(|| format!("`{word}` is no word of the glossary; / in the help searches it"))?;
            app.say(glossary::line(&word));
        }
        "image" => app.picture = number(one()?, app.info.picture_count, 1)?,
        "compare" => app.compare = if one()? == "off" { None } else { Some(number(one()?, app.info.picture_count, 1)?) },
        "view" => {
            let view = parse(one()?)?;
            show(app, view);
        }
        "theme" => app.look.theme = Theme::named(one()?, app.look.own).map_err(|e| e.to_string())?,
        "open" if !rest.is_empty() => return Ok(vec![Effect::Open(rest.iter().map(PathBuf::from).collect())]),
        "save" | "save!" if rest.len() == 1 => {
            let mut file = PathBuf::from(rest[0]);
            if file.extension().is_none() {
                file.set_extension("toml");
            }
            return Ok(vec![Effect::Save { file, over: name == "save!" }]);
        }
        "save" | "save!" => return Err(format!("{name} takes a FILE, such as {name} lesson.toml")),
        "pin" => return Ok(act(app, Action::Pin)),
        "undo" => return Ok(act(app, Action::Undo)),
        "redo" => return Ok(act(app, Action::Redo)),
        "reset" => return Ok(act(app, Action::Reset)),
        "export" => return Ok(act(app, Action::Export)),
        "command" => return Ok(act(app, Action::CopyCommand)),
        "quit" => return Ok(vec![Effect::Quit]),
        other => return Err(format!("`{other}` is no command; Tab completes, and these begin alike: {}", alike(other))),
    }
    Ok(settled(app, before, true))
}

fn alike(name: &str) -> String {
    let first = |c: &&Command| c.name.starts_with(name.chars().next().unwrap_or(' '));
    let found: Vec<&str> = COMMANDS.iter().filter(first).map(|c| c.name).collect();
    if found.is_empty() { "none".into() } else { found.join(", ") }
}

/// One of a list, by its name.
fn listed<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let expected = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| format!("`{text}`: expected one of {}", expected()))
}

fn parse<T: FromStr<Err = crate::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: crate::Error| e.to_string())
}

/// A number of `count` from `first` on, as an index.
fn number(text: &str, count: usize, first: usize) -> Result<usize, String> {
    let index = text.parse::<usize>().ok().and_then(|n| n.checked_sub(first)).filter(|index| *index < count);
    index.ok_or_else(|| format!("`{text}` is not a number from {first} to {}", count.saturating_add(first).saturating_sub(1)))
}

/// `site SITE` selects; `site PATTERN abits N ...` gives its sites something of their own.
fn site(app: &mut App, words: &[&str]) -> Result<(), String> {
    let Some((name, rest)) = words.split_first() else { return Err("site takes a SITE, such as blocks.3.fc2".into()) };
    if let Ok(site) = name.parse::<Site>()
        && !app.select(site)
    {
        return Err(format!("the model has no site {name}"));
    }
    if rest.is_empty() {
        return name.parse::<Site>().map(|_| ()).map_err(|e| e.to_string());
    }
    let pattern: SitePattern = parse(name)?;
    if !app.info.sites.iter().any(|site| pattern.matches(*site)) {
        return Err(format!("no site of the model is {name}"));
    }
    let mut own = crate::quant::SiteOverride { sites: pattern.clone(), wbits: None, abits: None, groups: None };
    let mut rest = rest.iter();
    let mut float = false;
    while let Some(what) = rest.next() {
        let mut value = || rest.next().copied().ok_or_else(|| format!("{what} takes a number"));
        match *what {
            "float" => float = true,
            "abits" => own.abits = Some(parse::<BitWidth>(value()?)?),
            "wbits" => own.wbits = Some(parse::<BitWidth>(value()?)?),
            "groups" => own.groups = Some(parse::<GroupCount>(value()?)?),
            other => return Err(format!("`{other}`: a site has abits, wbits, groups and float")),
        }
    }
    if float && !app.settings.keep_float.contains(&pattern) {
        app.settings.keep_float.push(pattern);
    }
    if own.abits.is_some() || own.wbits.is_some() || own.groups.is_some() {
        // What was said of the same pattern before and is not said now stays.
        let known = app.settings.overrides.iter().position(|o| o.sites == own.sites);
        if let Some(known) = known.map(|at| app.settings.overrides.remove(at)) {
            (own.wbits, own.abits, own.groups) = (own.wbits.or(known.wbits), own.abits.or(known.abits), own.groups.or(known.groups));
        }
        app.settings.overrides.push(own);
    }
    Ok(())
}

/// What a line can go on to: whole lines, those that begin as it does.
#[must_use]
pub fn completions(app: &App, line: &str) -> Vec<String> {
    let start = line.trim_start();
    let Some((name, last)) = start.rsplit_once(' ') else {
        return COMMANDS.iter().filter(|c| c.name.starts_with(start)).map(|c| c.name.to_string()).collect();
    };
    let words: Vec<&str> = name.split_whitespace().collect();
    let values = match words.as_slice() {
        ["site", _, ..] => ["abits", "wbits", "groups", "float"].map(String::from).to_vec(),
        [one] => COMMANDS.iter().find(|c| c.name == *one).map(|c| (c.values)(app)).unwrap_or_default(),
        _ => Vec::new(),
    };
    values.into_iter().filter(|value| value.starts_with(last)).map(|value| format!("{name} {value}")).collect()
}

/// What the line above the footer says while a command is typed: what it can go on to, or what the command does.
#[must_use]
pub fn hint(app: &App, line: &str) -> String {
    let found = completions(app, line);
    let whole = line.split_whitespace().next().and_then(|name| COMMANDS.iter().find(|c| c.name == name));
    let last = |text: &String| text.rsplit(' ').next().unwrap_or_default().to_string();
    match (whole, found.len()) {
        (Some(c), _) if !line.contains(' ') || found.is_empty() => format!("{} {}: {}", c.name, c.takes, c.help),
        (_, 0) => "no such command; Esc leaves".into(),
        _ => found.iter().map(last).collect::<Vec<_>>().join("  "),
    }
}

/// Most bytes of a command: paths are the longest that one takes.
pub const LONGEST: usize = 4096;

/// A key while a command is typed.
pub fn typed(app: &mut App, key: &KeyEvent) -> Vec<Effect> {
    let Some(mut line) = app.palette.take() else { return Vec::new() };
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => {
            app.said.push(line.clone());
            return run(app, &line).unwrap_or_else(|problem| {
                app.complain(problem);
                Vec::new()
            });
        }
        KeyCode::Tab => line = completed(&completions(app, &line)).unwrap_or(line),
        KeyCode::Up => line = app.said.pop().unwrap_or(line),
        KeyCode::Backspace if line.is_empty() => return Vec::new(),
        KeyCode::Backspace => drop(line.pop()),
        KeyCode::Char(c) if line.len() < LONGEST => line.push(c),
        _ => {}
    }
    app.palette = Some(line);
    Vec::new()
}

/// As far as all go on alike; with a blank behind where there is only one.
fn completed(lines: &[String]) -> Option<String> {
    let first = lines.first()?;
    if lines.len() == 1 {
        return Some(format!("{first} "));
    }
    let common = |a: &str, b: &str| a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count();
    let length = lines.iter().map(|line| common(first, line)).min()?;
    Some(first.chars().take(length).collect())
}
