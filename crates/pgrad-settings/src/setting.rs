//! One declared setting, and a struct of them.

use crate::{FieldType, Kind, SettingError, Value, suggest};
use std::any::Any;
use std::fmt::Debug;

/// Everything that is known about one setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Name, in files, on the command line and in the struct.
    pub key: &'static str,
    /// What it means, and what raising it does.
    pub help: String,
    /// Type and range.
    pub kind: Kind,
    /// Value when nobody says otherwise.
    pub default: Value,
    /// Unit, if it has one.
    pub unit: Option<&'static str>,
    /// Where the default comes from: a paper's table, an implementation.
    pub source: Option<&'static str>,
    /// When it applies; always without a condition.
    pub when: Option<Condition>,
    /// Whether results do not depend on it, so that it may be another one when a run is resumed.
    pub free: bool,
}

/// When a setting applies: another setting has one of some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The other setting.
    pub key: &'static str,
    /// Its values, as they are typed.
    pub values: &'static [&'static str],
}

impl Condition {
    /// Whether `value`, of the setting [`Condition::key`], is one of the values.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        self.values.contains(&plain(value).as_str())
    }
}

impl std::fmt::Display for Condition {
    /// `objective = clip`, `objective = kl-adaptive or kl-fixed`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}", self.key, self.values.join(" or "))
    }
}

impl Setting {
    /// A setting without unit and source, with the widest range of its type. Called by
    /// [`settings!`](crate::settings).
    #[must_use]
    pub fn new<T: FieldType>(key: &'static str, help: &[&str], default: &T) -> Self {
        let (help, kind) = (help_text(help), T::kind(None));
        Self {
            key,
            help,
            kind,
            default: default.to_value(),
            unit: None,
            source: None,
            when: None,
            free: false,
        }
    }
    /// The same with a range.
    #[must_use]
    pub fn with_range<T: FieldType>(self, range: impl Into<T::Range>) -> Self {
        Self { kind: T::kind(Some(range.into())), ..self }
    }
    /// The same with a unit.
    #[must_use]
    pub fn with_unit(self, unit: &'static str) -> Self {
        Self { unit: Some(unit), ..self }
    }
    /// The same with a source.
    #[must_use]
    pub fn with_source(self, source: &'static str) -> Self {
        Self { source: Some(source), ..self }
    }
    /// The same, applying only when the setting `key` has one of `values`.
    #[must_use]
    pub fn with_condition(self, key: &'static str, values: &'static [&'static str]) -> Self {
        Self { when: Some(Condition { key, values }), ..self }
    }
    /// The same, on which results do not depend.
    #[must_use]
    pub fn free(self) -> Self {
        Self { free: true, ..self }
    }
    /// Whether it applies beside the present values of `settings`.
    #[must_use]
    pub fn applies(&self, settings: &[&dyn Settings]) -> bool {
        let holds = |when: &Condition| {
            settings.iter().find_map(|s| s.get(when.key)).is_none_or(|value| when.holds(&value))
        };
        self.when.as_ref().is_none_or(holds)
    }
    /// The facts in one line:
    /// `default 128; 1 to 1000000; unit: steps; source: Schulman et al. 2017, table 5`, with `only when ...`
    /// where it does not always apply, and at the end whether a resumed run may have another value.
    #[must_use]
    pub fn facts(&self) -> String {
        let mut line = format!("default {}; {}", plain(&self.default), self.kind.allowed());
        for (name, text) in [("unit", self.unit), ("source", self.source)] {
            if let Some(text) = text {
                line.push_str(&format!("; {name}: {text}"));
            }
        }
        if let Some(when) = &self.when {
            line.push_str(&format!("; only when {when}"));
        }
        if self.free {
            line.push_str("; may be changed on resume");
        }
        line
    }
    /// `value` in its normal form.
    ///
    /// # Errors
    /// When it has another type or lies outside the range.
    pub fn check(&self, value: &Value) -> Result<Value, SettingError> {
        self.kind.check(self.key, &self.default, value)
    }
}

/// A value as it is written on the command line: text without quotes (unless it is empty).
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Text(s) if !s.is_empty() => s.clone(),
        other => other.to_string(),
    }
}

/// The lines of a doc comment as one text. Called by the macros.
#[must_use]
pub fn help_text(lines: &[&str]) -> String {
    lines.iter().map(|l| l.trim()).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A struct of settings, made by [`settings!`](crate::settings). Object-safe; a `&dyn Settings` is also a
/// `&dyn Any`, so the struct can be had back by downcast.
pub trait Settings: Any + Debug + Send + Sync {
    /// What the settings are about: the first line of the struct's documentation, without its full stop.
    fn title(&self) -> &'static str;
    /// The settings, in the order of their declaration.
    fn declarations(&self) -> &'static [Setting];
    /// The value of a setting; `None` when there is none of this name.
    fn get(&self, key: &str) -> Option<Value>;
    /// Sets a setting.
    ///
    /// # Errors
    /// When there is no such setting, or it does not take this value; nothing has changed then.
    fn set(&mut self, key: &str, value: &Value) -> Result<(), SettingError>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn Settings>;

    /// The declaration of a setting.
    fn declaration(&self, key: &str) -> Option<&'static Setting> {
        self.declarations().iter().find(|s| s.key == key)
    }
    /// Checks every field against its range. Only needed for a struct that was filled in by hand.
    ///
    /// # Errors
    /// For the first field outside its range.
    fn validate(&self) -> Result<(), SettingError> {
        for setting in self.declarations() {
            if let Some(value) = self.get(setting.key) {
                setting.check(&value)?;
            }
        }
        Ok(())
    }
}

impl Clone for Box<dyn Settings> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// Checks `value` and turns it into a field. Called by [`settings!`](crate::settings).
///
/// # Errors
/// As [`Setting::check`].
pub fn field_from<T: FieldType>(setting: &Setting, value: &Value) -> Result<T, SettingError> {
    let checked = setting.check(value)?;
    T::from_value(&checked).ok_or_else(|| SettingError::Type {
        key: setting.key.to_owned(),
        expected: setting.kind.describe(),
        got: value.describe(),
        default: setting.default.to_string(),
    })
}

/// The error for a name that no setting has. Called by [`settings!`](crate::settings).
#[must_use]
pub fn unknown<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> SettingError {
    // No name is nearly as long: the rest of a longer one says nothing, and takes time.
    const MAX_SHOWN: usize = 64;
    if key.chars().count() <= MAX_SHOWN {
        return SettingError::Unknown {
            key: key.to_owned(),
            suggestion: suggest(key, known).map(str::to_owned),
        };
    }
    let shown = key.chars().take(MAX_SHOWN).chain(['…']).collect();
    SettingError::Unknown { key: shown, suggestion: None }
}

/// Declares a struct of settings. See the [crate's documentation](crate) for an example.
///
/// Each field is
/// `name: Type = default, range: …, unit: "…", source: "…", when: other is "a" | "b", resume: free;` with a
/// doc comment; the last five parts are optional, in this order. A setting with `when` applies only where the
/// setting `other` has one of those values; given elsewhere it is refused, by
/// [`check_given`](crate::check_given). One with `resume: free` is nothing that results depend on, so a
/// resumed run may have another value. What a range is made of is said at [`IntRange`](crate::IntRange) and
/// [`FloatRange`](crate::FloatRange); that of a list is the range of each entry, that of a text its length.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $title:literal])+
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $key:ident : $ty:ty = $default:expr
                $(, range: $range:expr)?
                $(, unit: $unit:literal)?
                $(, source: $source:literal)?
                $(, when: $other:ident is $($value:literal)|+)?
                $(, resume: $free:ident)? ;
            )*
        }
    ) => {
        $(#[doc = $title])+
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $(
                $(#[doc = $help])+
                #[doc = concat!(
                    "\n\nDefault `", stringify!($default), "`"
                    $(, ", range `", stringify!($range), "`")?
                    $(, ", unit: ", $unit)?
                    $(, ", source: ", $source)?, "."
                    $(, " Only when `", stringify!($other), "` is ", $("`", $value, "`, "),+, "else ignored.")?
                    $(, " On resume: ", stringify!($free), ".")?
                )]
                pub $key: $ty,
            )*
        }
        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
        impl $crate::Settings for $name {
            fn title(&self) -> &'static str {
                let lines: &[&'static str] = &[$($title),+];
                let first = lines[0].trim();
                first.strip_suffix('.').unwrap_or(first)
            }
            fn declarations(&self) -> &'static [$crate::Setting] {
                static DECLARED: ::std::sync::LazyLock<::std::vec::Vec<$crate::Setting>> =
                    ::std::sync::LazyLock::new(|| ::std::vec![
                        $({
                            let default: $ty = $default;
                            $crate::Setting::new::<$ty>(stringify!($key), &[$($help),+], &default)
                                $(.with_range::<$ty>($range))?
                                $(.with_unit($unit))?
                                $(.with_source($source))?
                                $(.with_condition(stringify!($other), &[$($value),+]))?
                                $(.$free())?
                        },)*
                    ]);
                &DECLARED
            }
            fn get(&self, key: &str) -> ::core::option::Option<$crate::Value> {
                $(if key == stringify!($key) {
                    return ::core::option::Option::Some($crate::FieldType::to_value(&self.$key));
                })*
                ::core::option::Option::None
            }
            fn set(&mut self, key: &str, value: &$crate::Value) -> ::core::result::Result<(), $crate::SettingError> {
                let all = $crate::Settings::declarations(self);
                let setting = all
                    .iter()
                    .find(|s| s.key == key)
                    .ok_or_else(|| $crate::unknown(key, all.iter().map(|s| s.key)))?;
                $(if key == stringify!($key) {
                    self.$key = $crate::field_from(setting, value)?;
                    return ::core::result::Result::Ok(());
                })*
                ::core::result::Result::Ok(())
            }
            fn boxed_clone(&self) -> ::std::boxed::Box<dyn $crate::Settings> {
                ::std::boxed::Box::new(self.clone())
            }
        }
    };
}

/// Declares a struct of settings that is another one, some of whose settings have a default, a source or a
/// condition of their own.
///
/// Each line is `name = default, source: "…", when: other is "a" | "b";`, of which each part may be missing;
/// settings without a line are those of the other struct. `without a | b` behind the other struct leaves
/// settings out: nobody can give them. The fields are those of the other struct, by `Deref`.
///
/// ```
/// use pgrad_settings::{Settings, settings, settings_like};
///
/// settings! {
///     /// The rollout.
///     pub struct RolloutSettings {
///         /// Environments stepped together (N).
///         n_envs: usize = 8, range: 1..=65_536, source: "Schulman et al. 2017, Table 5";
///         /// Steps of each environment in an iteration (T).
///         n_steps: usize = 128, range: 1..=1_048_576, source: "Schulman et al. 2017, Table 5";
///     }
/// }
/// settings_like! {
///     /// The rollout, shorter.
///     pub struct ShortRollout(RolloutSettings) {
///         n_steps = 5, source: "Mnih et al. 2016, supplement";
///     }
/// }
/// let short = ShortRollout::default();
/// assert_eq!((short.n_envs, short.n_steps), (8, 5));
/// assert!(short.declaration("n_steps").unwrap().facts().starts_with("default 5; "));
/// assert_eq!(short.title(), "The rollout, shorter");
/// ```
#[macro_export]
macro_rules! settings_like {
    (
        $(#[doc = $title:literal])+
        $vis:vis struct $name:ident($inner:ty) $(without $($gone:ident)|+)? {
            $(
                $key:ident $(= $default:expr)?
                $(, source: $source:literal)?
                $(, when: $other:ident is $($value:literal)|+)? ;
            )*
        }
    ) => {
        $(#[doc = $title])+
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name(
            /// The settings.
            pub $inner,
        );
        impl ::core::default::Default for $name {
            fn default() -> Self {
                #[allow(unused_mut, reason = "not every line has a default of its own")]
                let mut inner = <$inner as ::core::default::Default>::default();
                $($(inner.$key = $default;)?)*
                Self(inner)
            }
        }
        impl ::core::ops::Deref for $name {
            type Target = $inner;
            fn deref(&self) -> &$inner {
                &self.0
            }
        }
        impl ::core::ops::DerefMut for $name {
            fn deref_mut(&mut self) -> &mut $inner {
                &mut self.0
            }
        }
        impl $name {
            /// Settings of the other struct that are left out.
            const WITHOUT: &'static [&'static str] = &[$($(stringify!($gone)),+)?];
        }
        impl $crate::Settings for $name {
            fn title(&self) -> &'static str {
                let lines: &[&'static str] = &[$($title),+];
                let first = lines[0].trim();
                first.strip_suffix('.').unwrap_or(first)
            }
            fn declarations(&self) -> &'static [$crate::Setting] {
                static DECLARED: ::std::sync::LazyLock<::std::vec::Vec<$crate::Setting>> =
                    ::std::sync::LazyLock::new(|| {
                        $($(let _ = |other: &$inner| ::core::mem::drop(&other.$gone);)+)?
                        let like = <$name as ::core::default::Default>::default();
                        let mut all = $crate::Settings::declarations(&like.0).to_vec();
                        $({
                            let default = $crate::FieldType::to_value(&like.0.$key);
                            for setting in all.iter_mut().filter(|s| s.key == stringify!($key)) {
                                setting.default = default.clone();
                                $(setting.source = ::core::option::Option::Some($source);)?
                                $(*setting = setting.clone().with_condition(stringify!($other), &[$($value),+]);)?
                            }
                        })*
                        all.retain(|s| !$name::WITHOUT.contains(&s.key));
                        all
                    });
                &DECLARED
            }
            fn get(&self, key: &str) -> ::core::option::Option<$crate::Value> {
                if Self::WITHOUT.contains(&key) {
                    return ::core::option::Option::None;
                }
                $crate::Settings::get(&self.0, key)
            }
            fn set(&mut self, key: &str, value: &$crate::Value) -> ::core::result::Result<(), $crate::SettingError> {
                if Self::WITHOUT.contains(&key) {
                    let all = $crate::Settings::declarations(self);
                    return ::core::result::Result::Err($crate::unknown(key, all.iter().map(|s| s.key)));
                }
                // What is said of a wrong value is said with the default that counts here.
                if let ::core::option::Option::Some(setting) = $crate::Settings::declaration(self, key) {
                    setting.check(value)?;
                }
                $crate::Settings::set(&mut self.0, key, value)
            }
            fn boxed_clone(&self) -> ::std::boxed::Box<dyn $crate::Settings> {
                ::std::boxed::Box::new(self.clone())
            }
        }
    };
}
