//! Every kind of setting against everything that a user can get wrong, and the way there and back.

use pgrad_settings::{
    ConfigError, ConfigErrors, Place, SettingError, Settings, Value, above, apply_pair, apply_text,
    apply_toml, check_declarations, check_given, choice, read_key, reference_markdown, reference_text,
    settings, to_toml,
};
use proptest::prelude::*;

choice! {
    /// What bounds a step.
    pub enum Objective {
        /// The ratio is clipped.
        Clip = "clip",
        /// A penalty on the KL | with a coefficient that adapts.
        KlAdaptive = "kl-adaptive",
        /// Nothing bounds it.
        Unbounded = "none",
    }
}
settings! {
    /// One setting of every kind.
    /// This line is not part of the title.
    pub struct Every {
        /// Whether advantages are normalised.
        normalise: bool = true;
        /// Steps per environment and iteration (T).
        n_steps: usize = 128, range: 1..=1_000_000, unit: "steps", source: "Schulman et al. 2017, table 5";
        /// Seed of every stream.
        seed: u64 = 1;
        /// Number of environments stepped together.
        n_envs: u32 = 8, range: 1..;
        /// Discount.
        gamma: f64 = 0.99, range: 0.0..=1.0;
        /// Width of the clip.
        clip: f64 = 0.2, range: above(0.0).below(1.0);
        /// Cut of the ratio, infinite for none.
        ratio_cap: f64 = f64::INFINITY, range: above(0.0).to(f64::INFINITY);
        /// Mean of the initial log-std.
        log_std: f64 = -0.5;
        /// What bounds a step.
        objective: Objective = Objective::Clip;
    }
}
settings! {
    /// The rest
    pub struct Rest {
        /// Units of each hidden layer.
        hidden: Vec<usize> = vec![64, 64], range: 1..=65_536, unit: "units";
        /// The epochs stop beyond this KL.
        target_kl: Option<f64> = None, range: above(0.0), unit: "nats";
        /// Steps between two evaluations.
        eval_every: Option<usize> = Some(10_000), range: 1..;
        /// Name of the run.
        label: String = String::from("run"), range: 1..=20;
        /// Remarks.
        note: String = String::new();
    }
}

fn both() -> (Every, Rest) {
    (Every::default(), Rest::default())
}

/// Errors of laying `text` over the defaults; checks that nothing changed.
fn refused(text: &str) -> Vec<ConfigError> {
    let (mut every, mut rest) = both();
    let errors = apply_toml(text, "my.toml", &mut [&mut every, &mut rest]).expect_err(text).0;
    assert_eq!((every, rest), both(), "{text}: changed although refused");
    errors
}

/// The only error, as one line.
fn message(text: &str) -> String {
    let errors = refused(text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

fn hint(text: &str) -> String {
    refused(text)[0].hint().unwrap_or_default()
}

/// Crates have their own `Result`; the macros must not fall for it.
mod own_names {
    pub(super) type Result = ();
    pub(super) type Option = ();
    pgrad_settings::choice! {
        /// A choice.
        pub enum Only {
            /// The only one.
            One = "one",
        }
    }
    pgrad_settings::settings! {
        /// A struct.
        pub struct OwnNames {
            /// The only setting.
            only: Only = Only::One;
        }
    }
}

#[test]
fn macros_do_not_fall_for_the_names_of_the_crate_that_uses_them() {
    let mut settings = own_names::OwnNames::default();
    let _: (own_names::Result, own_names::Option) = ((), ());
    assert_eq!(settings.set("only", &"one".into()), Ok(()));
    assert_eq!(settings.get("only"), Some("one".into()));
}

#[test]
fn wrong_type_says_what_was_expected_and_what_came() {
    for (text, expected) in [
        ("normalise = 1", "`normalise` takes `true` or `false`, but got the whole number 1"),
        ("normalise = \"true\"", "`normalise` takes `true` or `false`, but got the text `true`"),
        ("n_steps = \"many\"", "`n_steps` takes a whole number, 1 to 1000000, but got the text `many`"),
        ("n_steps = 1.5", "`n_steps` takes a whole number, 1 to 1000000, but got the number 1.5"),
        ("n_steps = true", "`n_steps` takes a whole number, 1 to 1000000, but got `true`"),
        ("n_steps = [1]", "`n_steps` takes a whole number, 1 to 1000000, but got the list [1]"),
        ("n_steps = nan", "`n_steps` takes a whole number, 1 to 1000000, but got NaN, which is not a number"),
        ("n_steps = inf", "`n_steps` takes a whole number, 1 to 1000000, but got the number inf"),
        ("n_steps = 2001-01-01", "`n_steps` takes a whole number, 1 to 1000000, but got a date or a time"),
        ("gamma = \"high\"", "`gamma` takes a number in [0, 1], but got the text `high`"),
        ("gamma = false", "`gamma` takes a number in [0, 1], but got `false`"),
        ("log_std = \"\"", "`log_std` takes any finite number, but got an empty text"),
        (
            "objective = 3",
            "`objective` takes one of `clip`, `kl-adaptive`, `none`, but got the whole number 3",
        ),
        (
            "hidden = 64",
            "`hidden` takes a list of whole numbers, each 1 to 65536, but got the whole number 64",
        ),
        ("hidden = [64, \"x\"]", "`hidden[1]` takes a whole number, 1 to 65536, but got the text `x`"),
        ("hidden = [[64]]", "`hidden[0]` takes a whole number, 1 to 65536, but got the list [64]"),
        (
            "hidden = [2001-01-01]",
            "`hidden` takes a list of whole numbers, each 1 to 65536, but got a date or a time",
        ),
        ("target_kl = true", "`target_kl` takes a number in (0, inf), or `none`, but got `true`"),
        ("target_kl = \"off\"", "`target_kl` takes a number in (0, inf), or `none`, but got the text `off`"),
        (
            "eval_every = 0.5",
            "`eval_every` takes a whole number, 1 or more, or `none`, but got the number 0.5",
        ),
        ("label = 7", "`label` takes text of 1 to 20 characters, but got the whole number 7"),
    ] {
        assert!(
            matches!(&refused(text)[0], ConfigError::Setting { error, .. }
                if matches!(error, SettingError::Type { .. } | SettingError::Choice { .. })),
            "{text}"
        );
        assert_eq!(message(text), format!("my.toml:1: {expected}"));
    }
}

#[test]
fn out_of_range_says_the_range() {
    for (text, expected) in [
        ("n_steps = 0", "`n_steps` takes a whole number, 1 to 1000000, but got the whole number 0"),
        (
            "n_steps = 1_000_001",
            "`n_steps` takes a whole number, 1 to 1000000, but got the whole number 1000001",
        ),
        ("n_steps = -5", "`n_steps` takes a whole number, 1 to 1000000, but got the whole number -5"),
        ("seed = -1", "`seed` takes a whole number, 0 or more, but got the whole number -1"),
        (
            "seed = 18446744073709551616",
            "`seed` takes a whole number, 0 or more, but got the whole number 18446744073709551616",
        ),
        (
            "n_envs = 4294967296",
            "`n_envs` takes a whole number, 1 to 4294967295, but got the whole number 4294967296",
        ),
        ("gamma = -1e-9", "`gamma` takes a number in [0, 1], but got the number -1e-9"),
        ("gamma = 1.0000001", "`gamma` takes a number in [0, 1], but got the number 1.0000001"),
        ("gamma = nan", "`gamma` takes a number in [0, 1], but got NaN, which is not a number"),
        ("gamma = inf", "`gamma` takes a number in [0, 1], but got the number inf"),
        ("clip = 0", "`clip` takes a number in (0, 1), but got the whole number 0"),
        ("clip = 1.0", "`clip` takes a number in (0, 1), but got the number 1.0"),
        ("ratio_cap = nan", "`ratio_cap` takes a number in (0, inf], but got NaN, which is not a number"),
        ("log_std = inf", "`log_std` takes any finite number, but got the number inf"),
        ("log_std = -inf", "`log_std` takes any finite number, but got the number -inf"),
        ("log_std = nan", "`log_std` takes any finite number, but got NaN, which is not a number"),
        ("hidden = [64, 0]", "`hidden[1]` takes a whole number, 1 to 65536, but got the whole number 0"),
        ("hidden = [65537]", "`hidden[0]` takes a whole number, 1 to 65536, but got the whole number 65537"),
        ("target_kl = 0.0", "`target_kl` takes a number in (0, inf), or `none`, but got the number 0.0"),
        (
            "target_kl = nan",
            "`target_kl` takes a number in (0, inf), or `none`, but got NaN, which is not a number",
        ),
        (
            "eval_every = 0",
            "`eval_every` takes a whole number, 1 or more, or `none`, but got the whole number 0",
        ),
        ("label = \"\"", "`label` takes text of 1 to 20 characters, but got an empty text"),
        (
            "label = \"123456789012345678901\"",
            "`label` takes text of 1 to 20 characters, but got 21 characters",
        ),
    ] {
        assert!(
            matches!(&refused(text)[0], ConfigError::Setting { error: SettingError::Range { .. }, .. }),
            "{text}"
        );
        assert_eq!(message(text), format!("my.toml:1: {expected}"));
    }
    assert_eq!(hint("gamma = 2"), "the default is `gamma = 0.99`");
    assert_eq!(hint("hidden = [0]"), "the default is `hidden = [64, 64]`");
}

#[test]
fn ends_of_ranges_are_taken() {
    let (mut every, mut rest) = both();
    let text = "n_steps = 1000000\nn_envs = 4294967295\nseed = 18446744073709551615\ngamma = 1\nratio_cap = inf\n\
                hidden = []\ntarget_kl = \"None\"\neval_every = 1e3\nn_envs_ = 1";
    let text = text.trim_end_matches("\nn_envs_ = 1");
    apply_toml(text, "my.toml", &mut [&mut every, &mut rest]).unwrap();
    assert_eq!((every.n_steps, every.n_envs, every.seed), (1_000_000, u32::MAX, u64::MAX));
    assert_eq!((every.gamma, every.ratio_cap), (1.0, f64::INFINITY));
    assert_eq!((rest.hidden.as_slice(), rest.target_kl, rest.eval_every), (&[][..], None, Some(1000)));
    assert_eq!(every.validate(), Ok(()));
}

#[test]
fn every_typo_of_one_letter_is_recognised() {
    let (every, rest) = both();
    let keys: Vec<_> = every.declarations().iter().chain(rest.declarations()).map(|s| s.key).collect();
    for key in &keys {
        for i in 0..key.len() {
            let (head, tail) = key.split_at(i);
            for typo in
                [format!("{head}{}", &tail[1..]), format!("{head}q{tail}"), format!("{head}q{}", &tail[1..])]
            {
                if typo.is_empty() || keys.contains(&typo.as_str()) {
                    continue;
                }
                let (mut every, mut rest) = both();
                let error = apply_text(&typo, "1", "--set", &mut [&mut every, &mut rest]).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!("--set: there is no setting `{typo}`\n  hint: did you mean `{key}`?")
                );
            }
        }
    }
    assert_eq!(hint("n-steps = 1"), "did you mean `n_steps`?");
    assert_eq!(hint("N_Steps = 1"), "did you mean `n_steps`?");
    assert_eq!(refused("colour = 1")[0].hint(), None);
    assert_eq!(hint("objective = \"klip\""), "did you mean `clip`?");
    assert_eq!(hint("objective = \"kl_adaptive\""), "did you mean `kl-adaptive`?");
    assert_eq!(hint("objective = \"\""), "the default is `objective = \"clip\"`");
}

#[test]
fn all_errors_of_a_file_come_with_their_lines() {
    let errors = refused("# a comment\ngamma = 2\n\n  n_stepz = 3 # typo\nclip = 0.1\nlabel = 1\n");
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "my.toml:2: `gamma` takes a number in [0, 1], but got the whole number 2",
            "my.toml:4: there is no setting `n_stepz`",
            "my.toml:6: `label` takes text of 1 to 20 characters, but got the whole number 1",
        ]
    );
    assert!(ConfigErrors(errors).to_string().ends_with(
        "n_stepz`\n  hint: did you mean `n_steps`?\nmy.toml:6: `label` takes text of 1 to 20 characters, \
             but got the whole number 1\n  hint: the default is `label = \"run\"`"
    ));
}

#[test]
fn text_that_is_not_toml_is_named_with_its_line() {
    for (text, line, what) in [
        ("gamma = 0.9\nclip =\n", 2, "value"),
        ("gamma = 0.9\nclip 0.1\n", 2, "="),
        ("clip = 0.1\nlabel = \"open\n", 2, "string"),
        ("clip = 0.1\ngamma = 0.9\nclip = 0.2\n", 3, "duplicate"),
        ("hidden = [64, 64\n", 1, "array"),
    ] {
        let errors = refused(text);
        let ConfigError::Syntax { place, message } = &errors[0] else { panic!("{text}: {errors:?}") };
        assert_eq!(place.line, Some(line), "{text}: {message}");
        assert!(message.contains(what), "{text}: {message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn sections_are_refused() {
    assert_eq!(
        message("gamma = 0.9\n[ppo]\nclip = 0.1\n"),
        "my.toml:2: `ppo` opens a section, but settings are plain lines `key = value`"
    );
    assert!(matches!(&refused("gamma.x = 1")[0], ConfigError::Section { key, .. } if key == "gamma"));
    assert!(matches!(&refused("hidden = { a = 1 }")[0], ConfigError::Section { .. }));
}

#[test]
fn a_file_without_a_setting_leaves_it_alone() {
    let (mut every, mut rest) = both();
    every.gamma = 0.5;
    apply_toml("", "empty", &mut [&mut every, &mut rest]).unwrap();
    apply_toml("# only a comment\n", "comment", &mut [&mut every, &mut rest]).unwrap();
    assert_eq!((every.gamma, every.clip), (0.5, 0.2));
}

#[test]
fn the_command_line_takes_what_people_type() {
    let (mut every, mut rest) = both();
    for pair in [
        "normalise=false",
        "n_steps=1e3",
        "seed=1_000_000",
        "n_envs = 16",
        "gamma=.9",
        "clip=1e-1",
        "ratio_cap=inf",
        "log_std=-1",
        "objective=kl-adaptive",
        "hidden=32,1e2, 7",
        "target_kl=0.02",
        "eval_every=none",
        "label=\"a b\"",
        "note=x=y, z",
    ] {
        apply_pair(pair, "--set", &mut [&mut every, &mut rest]).unwrap();
    }
    let expected = Every {
        normalise: false,
        n_steps: 1000,
        seed: 1_000_000,
        n_envs: 16,
        gamma: 0.9,
        clip: 0.1,
        ratio_cap: f64::INFINITY,
        log_std: -1.0,
        objective: Objective::KlAdaptive,
    };
    assert_eq!(every, expected);
    let expected = Rest {
        hidden: vec![32, 100, 7],
        target_kl: Some(0.02),
        eval_every: None,
        label: "a b".into(),
        note: "x=y, z".into(),
    };
    assert_eq!(rest, expected);
    for (pair, hidden) in
        [("hidden=[8, 8]", vec![8, 8]), ("hidden=[]", vec![]), ("hidden=5", vec![5]), ("hidden=", vec![])]
    {
        apply_pair(pair, "--set", &mut [&mut every, &mut rest]).unwrap();
        assert_eq!(rest.hidden, hidden, "{pair}");
    }
}

#[test]
fn the_command_line_refuses_the_rest() {
    for (pair, expected) in [
        ("gamma", "--set: expected `key=value`, but got `gamma`"),
        ("=1", "--set: expected `key=value`, but got `=1`"),
        ("", "--set: expected `key=value`, but got ``"),
        ("gamma=", "--set: `gamma` takes a number in [0, 1], but got an empty text"),
        ("gamma=nan", "--set: `gamma` takes a number in [0, 1], but got NaN, which is not a number"),
        ("gamma=0.9.9", "--set: `gamma` takes a number in [0, 1], but got the text `0.9.9`"),
        ("n_steps=12.5", "--set: `n_steps` takes a whole number, 1 to 1000000, but got the number 12.5"),
        ("n_steps=1e400", "--set: `n_steps` takes a whole number, 1 to 1000000, but got the number inf"),
        ("seed=1e30", "--set: `seed` takes a whole number, 0 or more, but got the number 1e30"),
        ("normalise=yes", "--set: `normalise` takes `true` or `false`, but got the text `yes`"),
        ("hidden=64,,64", "--set: `hidden[1]` takes a whole number, 1 to 65536, but got an empty text"),
        (
            "objective=trust",
            "--set: `objective` takes one of `clip`, `kl-adaptive`, `none`, but got the text `trust`",
        ),
        ("label=", "--set: `label` takes text of 1 to 20 characters, but got an empty text"),
    ] {
        let (mut every, mut rest) = both();
        let errors = apply_pair(pair, "--set", &mut [&mut every, &mut rest]).unwrap_err();
        assert_eq!(errors.0[0].to_string(), expected);
        assert_eq!((every, rest), both(), "{pair}: changed although refused");
    }
}

#[test]
#[should_panic(expected = "two structs declare the setting `eval_every`")]
fn one_key_in_two_structs_is_our_bug() {
    let (mut a, mut b) = (Rest::default(), Rest::default());
    let _ = apply_toml("", "x", &mut [&mut a, &mut b]);
}

#[test]
fn a_struct_filled_by_hand_can_be_validated() {
    let every = Every { gamma: f64::NAN, ..Every::default() };
    let error = every.validate().unwrap_err();
    assert_eq!(error.to_string(), "`gamma` takes a number in [0, 1], but got NaN, which is not a number");
    assert_eq!(Every::default().validate(), Ok(()));
}

#[test]
fn one_struct_through_the_trait() {
    let mut every = Every::default();
    let boxed: Box<dyn Settings> = Box::new(every.clone());
    every.set("gamma", &Value::Int(1)).unwrap();
    assert_eq!(every.get("gamma"), Some(Value::Float(1.0)));
    assert_eq!(every.get("hidden"), None);
    assert_eq!(
        every.set("gama", &Value::Int(1)),
        Err(SettingError::Unknown { key: "gama".into(), suggestion: Some("gamma".into()) })
    );
    assert_eq!(every.title(), "One setting of every kind");
    let copy = boxed.clone();
    let any: &dyn std::any::Any = &*copy;
    assert_eq!(any.downcast_ref::<Every>(), Some(&Every::default()));
    let steps = every.declaration("n_steps").unwrap();
    assert_eq!(steps.help, "Steps per environment and iteration (T).");
    assert_eq!(
        steps.facts(),
        "default 128; 1 to 1000000; unit: steps; source: Schulman et al. 2017, table 5"
    );
}

#[test]
fn one_key_can_be_read_before_the_rest() {
    assert_eq!(read_key("algo = \"ppo\"\nx = 1", "f", "algo"), Ok(Some("ppo".into())));
    assert_eq!(read_key("x = 1", "f", "algo"), Ok(None));
    let place = Place { origin: "f".into(), line: Some(2) };
    assert!(
        matches!(read_key("x = 1\ny =", "f", "x"), Err(ConfigErrors(e)) if matches!(&e[0], ConfigError::Syntax { place: p, .. } if *p == place))
    );
}

#[test]
fn comments_say_everything_and_read_back() {
    let (every, rest) = both();
    let text = to_toml(&[&every, &rest], true);
    for part in [
        "# ---- One setting of every kind ----\n",
        "# ---- The rest ----\n",
        "# Steps per environment and iteration (T).\n# default 128; 1 to 1000000; unit: steps; source: Schulman et al. 2017, table 5\nn_steps = 128\n",
        "#   kl-adaptive: A penalty on the KL | with a coefficient that adapts.\nobjective",
        "# default none; (0, inf) | none; unit: nats\ntarget_kl = \"none\"\n",
    ] {
        // The alternative before the last one is followed by the last.
        let part = part.trim_end_matches("\nobjective");
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    let (mut a, mut b) = both();
    a.gamma = 0.0;
    b.note = "changed".into();
    apply_toml(&text, "written", &mut [&mut a, &mut b]).unwrap();
    assert_eq!((a, b), (every, rest));
    assert!(text.lines().all(|l| l.chars().count() <= 102), "lines are wrapped");
}

#[test]
fn the_help_has_every_setting_and_keeps_to_the_width() {
    let (every, rest) = both();
    let help = reference_text(&[&every, &rest], 60);
    assert!(help.lines().all(|l| l.chars().count() <= 60), "{help}");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in every.declarations().iter().chain(rest.declarations()) {
        let entry = help.split_once(&format!("\n  {}\n", setting.key)).unwrap().1;
        assert!(words(entry).starts_with(&setting.help), "{entry}");
        assert!(words(entry).contains(&words(&format!("[{}]", setting.facts()))), "{entry}");
    }
    assert!(words(&help).contains("none: Nothing bounds it."));
    assert!(help.contains("\nThe rest:\n"));
}

#[test]
fn the_reference_has_every_setting() {
    let (every, rest) = both();
    let page = reference_markdown(&[&every, &rest]);
    for setting in every.declarations().iter().chain(rest.declarations()) {
        let row = page.lines().find(|l| l.starts_with(&format!("| `{}` |", setting.key))).unwrap();
        // Seven cells: a `|` inside a cell is escaped.
        assert_eq!(row.replace("\\|", "").matches('|').count(), 8, "{row}");
        assert!(row.contains(&setting.help));
    }
    assert!(page.contains("## One setting of every kind\n"));
    assert!(page.contains("| `n_steps` | Steps per environment and iteration (T). | integer | 1 to 1000000 | `128` | steps | Schulman et al. 2017, table 5 |"));
}

#[expect(non_snake_case, reason = "what check_declarations has to find")]
mod wrong {
    pgrad_settings::settings! {
        /// Declarations with everything wrong
        pub struct Wrong {
            /// Units of each hidden layer.
            hidden: Vec<usize> = vec![0], range: 1..;
            /// not a sentence
            Gamma: f64 = 2.0, range: 0.0..=1.0;
            /// A tab	and a face 😀.
            face: bool = true;
            ///
            empty: bool = true;
        }
    }
}
use wrong::Wrong;

#[test]
fn wrong_declarations_are_found() {
    let (every, rest) = both();
    assert_eq!(check_declarations(&[&every, &rest]), Vec::<String>::new());
    let findings = check_declarations(&[&rest, &Wrong::default()]);
    let title = "of \"Declarations with everything wrong\"";
    assert_eq!(
        findings,
        [
            format!("`hidden` {title} is also declared in \"The rest\""),
            format!(
                "`hidden` {title} has a default that it does not take: `hidden[0]` takes a whole number, 1 or \
                 more, but got the whole number 0"
            ),
            format!("`Gamma` {title} has a name that is not lower_snake_case"),
            format!("`Gamma` {title} has a text (help) that is not a sentence: \"not a sentence\""),
            format!(
                "`Gamma` {title} has a default that it does not take: `Gamma` takes a number in [0, 1], but got \
                 the number 2.0"
            ),
            format!("`face` {title} has a text (help) with the character '\\t'"),
            format!("`empty` {title} has a text (help) that is not a sentence: \"\""),
        ]
    );
}

// ---- settings that do not always apply ----

settings! {
    /// A step
    pub struct Step {
        /// What bounds it.
        bound: Objective = Objective::Clip;
        /// Whether it is scaled.
        scaled: bool = false;
    }
}
settings! {
    /// What only some steps have
    pub struct StepParts {
        /// Width of the clip.
        width: f64 = 0.2, range: above(0.0), unit: "ratio", source: "a paper", when: bound is "clip";
        /// Weight of the penalty.
        weight: f64 = 1.0, when: bound is "kl-adaptive" | "none";
        /// Largest scale.
        scale: f64 = 10.0, when: scaled is "true";
    }
}

#[test]
fn what_is_given_and_does_not_apply_is_refused() {
    let check = |toml: &str, pairs: &[&str]| {
        let (mut step, mut parts) = (Step::default(), StepParts::default());
        let mut given = apply_toml(toml, "my.toml", &mut [&mut step, &mut parts]).unwrap();
        for pair in pairs {
            given.push(apply_pair(pair, "--set", &mut [&mut step, &mut parts]).unwrap());
        }
        // The order of the structs does not matter.
        let result = check_given(&given, &[&step, &parts]);
        assert_eq!(result, check_given(&given, &[&parts, &step]));
        result.map_err(|e| e.to_string())
    };
    for (toml, pairs) in [
        ("", &[][..]),
        ("width = 0.1", &[]),
        ("bound = \"none\"", &["weight=2"]),
        // The last word counts, wherever it is said.
        ("weight = 2.0", &["bound=none"]),
        ("scale = 1.0\nscaled = true", &["bound=kl-adaptive", "weight=3"]),
    ] {
        assert_eq!(check(toml, pairs), Ok(()), "{toml} {pairs:?}");
    }
    assert_eq!(
        check("bound = \"kl-adaptive\"\n\nwidth = 0.2\n", &["weight=1", "scale=1"]),
        Err("my.toml:3: `width` applies only when `bound` is `clip`, but it is `kl-adaptive`\n  \
             hint: leave `width` out, or give `bound=clip`\n\
             --set: `scale` applies only when `scaled` is `true`, but it is `false`\n  \
             hint: leave `scale` out, or give `scaled=true`"
            .to_owned())
    );
    assert_eq!(
        check("", &["weight=1"]),
        Err("--set: `weight` applies only when `bound` is `kl-adaptive` or `none`, but it is `clip`\n  \
             hint: leave `weight` out, or give `bound=kl-adaptive`"
            .to_owned())
    );
}

#[test]
fn what_does_not_apply_is_not_written() {
    let (mut step, parts) = (Step::default(), StepParts::default());
    assert_eq!(to_toml(&[&step, &parts], false), "bound = \"clip\"\nscaled = false\nwidth = 0.2\n");
    (step.bound, step.scaled) = (Objective::Unbounded, true);
    assert_eq!(
        to_toml(&[&parts, &step], false),
        "weight = 1.0\nscale = 10.0\nbound = \"none\"\nscaled = true\n"
    );
    let text = to_toml(&[&step, &parts], true);
    assert!(
        text.contains("; unit: ratio; source: a paper; only when bound is clip\n# width = 0.2\n"),
        "{text}"
    );
    assert!(text.contains("only when bound is kl-adaptive or none\nweight = 1.0\n"), "{text}");
    let (mut a, mut b) = (Step::default(), StepParts::default());
    let given = apply_toml(&text, "written", &mut [&mut a, &mut b]).unwrap();
    assert_eq!((check_given(&given, &[&a, &b]), a), (Ok(()), step));
}

#[test]
fn readers_are_told_when_a_setting_applies() {
    let (step, parts) = (Step::default(), StepParts::default());
    assert_eq!(check_declarations(&[&step, &parts]), Vec::<String>::new());
    let page = reference_markdown(&[&parts]);
    assert!(page.contains("| `width` | Width of the clip.<br>Only when bound is clip. |"), "{page}");
    let help = reference_text(&[&parts], 200);
    assert!(help.contains("only when bound is kl-adaptive or none]"), "{help}");
    let findings = check_declarations(&[&parts]);
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(
        findings[0].contains("`width`") && findings[0].contains("depends on `bound`, which is not there")
    );
}

mod like {
    pgrad_settings::settings_like! {
        /// Parts of a step, otherwise.
        pub struct OtherParts(super::StepParts) {
            width = 0.5, source: "another paper";
            scale, when: bound is "none";
            weight = 2.0;
        }
    }
    pgrad_settings::settings_like! {
        /// Parts of a step, fewer of them.
        pub struct FewerParts(super::StepParts) without width | weight {}
    }
}

#[test]
fn a_struct_may_be_like_another_one_without_some_settings() {
    let (all, mut fewer) = (StepParts::default(), like::FewerParts::default());
    let left: Vec<&str> = fewer.declarations().iter().map(|s| s.key).collect();
    let expected = all.declarations().iter().map(|s| s.key).filter(|k| !["width", "weight"].contains(k));
    assert_eq!(left, expected.collect::<Vec<_>>());
    for key in ["width", "weight"] {
        assert_eq!(fewer.get(key), None);
        let given = Value::Float(0.25);
        assert!(fewer.set(key, &given).is_err());
        let error = apply_pair(&format!("{key}=0.25"), "--set", &mut [&mut fewer]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    assert_eq!(fewer, like::FewerParts::default());
    apply_pair("scale=0.25", "--set", &mut [&mut fewer]).unwrap();
    assert_eq!(fewer.get("scale"), Some(Value::Float(0.25)));
}

#[test]
fn a_struct_may_be_like_another_one_but_for_some_defaults_and_conditions() {
    let (parts, mut other) = (StepParts::default(), like::OtherParts::default());
    assert_eq!(other.title(), "Parts of a step, otherwise");
    assert_eq!((other.width, other.scale, other.weight), (0.5, parts.scale, 2.0));
    let (width, before) = (other.declaration("width").unwrap(), parts.declaration("width").unwrap());
    assert_eq!((width.default.clone(), width.source), (Value::Float(0.5), Some("another paper")));
    assert_eq!((&width.help, &width.kind, width.when), (&before.help, &before.kind, before.when));
    let scale = other.declaration("scale").unwrap();
    assert_eq!(
        (scale.default.clone(), scale.when.unwrap().to_string()),
        (Value::Float(parts.scale), "bound is none".into())
    );
    assert_eq!(other.declarations().len(), parts.declarations().len());
    // Errors speak of the default that counts.
    let error = apply_pair("width=-1", "--set", &mut [&mut other]).unwrap_err().to_string();
    assert!(error.contains("the default is `width = 0.5`"), "{error}");
    apply_pair("width=0.25", "--set", &mut [&mut other]).unwrap();
    assert_eq!(other.get("width"), Some(Value::Float(0.25)));
    assert!(other.set("breadth", &Value::Float(1.0)).is_err());
}

mod wrong_conditions {
    pgrad_settings::settings! {
        /// Conditions with everything wrong
        pub struct WrongConditions {
            /// One.
            one: bool = true, when: one is "true";
            /// Two.
            two: bool = true, when: one is "false";
            /// Three.
            three: bool = true, when: four is "maybe";
            /// Four.
            four: bool = true;
        }
    }
}

#[test]
fn wrong_conditions_are_found() {
    let title = "of \"Conditions with everything wrong\"";
    assert_eq!(
        check_declarations(&[&wrong_conditions::WrongConditions::default()]),
        [
            format!("`one` {title} depends on `one`, which does not always apply"),
            format!("`two` {title} depends on `one`, which does not always apply"),
            format!(
                "`three` {title} depends on an impossible value: `four` takes `true` or `false`, but got the text \
                 `maybe`"
            ),
        ]
    );
}

/// Any number that `log_std` takes, the awkward ones more often.
fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |x| x.is_finite()),
        prop::sample::select(vec![0.0, -0.0, 1e16, 1e-7, f64::MIN_POSITIVE, f64::MAX, 5e-324, 0.1 + 0.2]),
    ]
}

fn any_every() -> impl Strategy<Value = Every> {
    (
        any::<bool>(),
        1usize..=1_000_000,
        any::<u64>(),
        1u32..,
        0.0..=1.0f64,
        0.001..0.999f64,
        prop_oneof![Just(f64::INFINITY), 1e-300..1e300f64],
        finite(),
        prop::sample::select(Objective::ALL),
    )
        .prop_map(|(normalise, n_steps, seed, n_envs, gamma, clip, ratio_cap, log_std, objective)| {
            Every { normalise, n_steps, seed, n_envs, gamma, clip, ratio_cap, log_std, objective }
        })
}

fn any_rest() -> impl Strategy<Value = Rest> {
    (
        prop::collection::vec(1usize..=65_536, 0..6),
        prop::option::of(1e-9..1e9f64),
        prop::option::of(1usize..),
        prop::collection::vec(any::<char>(), 1..=20),
        prop::collection::vec(any::<char>(), 0..=60),
    )
        .prop_map(|(hidden, target_kl, eval_every, label, note)| Rest {
            hidden,
            target_kl,
            eval_every,
            label: label.into_iter().collect(),
            note: note.into_iter().collect(),
        })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_to_the_same_bits(every in any_every(), rest in any_rest(), comments: bool) {
        let text = to_toml(&[&every, &rest], comments);
        let (mut a, mut b) = both();
        apply_toml(&text, "written", &mut [&mut a, &mut b]).unwrap();
        prop_assert_eq!(a.log_std.to_bits(), every.log_std.to_bits());
        prop_assert_eq!(a.gamma.to_bits(), every.gamma.to_bits());
        prop_assert_eq!((a, b), (every, rest));
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,60}", key in prop::sample::select(vec!["gamma", "hidden", "objective", "target_kl", "note"])) {
        let (mut every, mut rest) = both();
        let _ = apply_toml(&text, "x", &mut [&mut every, &mut rest]);
        let _ = apply_toml(&format!("{key} = {text}"), "x", &mut [&mut every, &mut rest]);
        let _ = apply_pair(&text, "x", &mut [&mut every, &mut rest]);
        let _ = apply_text(key, &text, "x", &mut [&mut every, &mut rest]);
        prop_assert_eq!(every.validate(), Ok(()));
        prop_assert_eq!(rest.validate(), Ok(()));
    }
}

#[test]
fn many_errors_are_counted_and_long_names_cut() {
    let lines: String = (0..20_000).map(|i| format!("nonsense_{i} = {i}\n")).collect();
    let errors = refused(&format!("{lines}gamma = 2.0\ncolour = 3\n"));
    assert_eq!(errors.len(), 11);
    assert_eq!(errors[9].to_string(), "my.toml:10: there is no setting `nonsense_9`");
    assert_eq!(errors[10].to_string(), "my.toml: 19992 more errors like these");
    let message = message(&format!("{} = 1", "x".repeat(100_000)));
    assert_eq!(message, format!("my.toml:1: there is no setting `{}…`", "x".repeat(64)));
}

#[test]
fn a_list_is_not_endless() {
    let text = |n: usize| format!("hidden = [{}]", vec!["3"; n].join(", "));
    assert_eq!(message(&text(65)), "my.toml:1: `hidden` takes at most 64 entries, but got 65 of them");
    let (mut every, mut rest) = both();
    apply_toml(&text(64), "my.toml", &mut [&mut every, &mut rest]).unwrap();
}
