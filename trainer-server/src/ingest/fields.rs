//! Reading the fields of a JSON object, with a fault that points at the field when one is wrong.
//!
//! A field that is `null` counts as absent. Unknown fields are ignored: senders may add their own.

use serde_json::{Map, Value};
use shared_model::ids::IdError;

use super::{Fault, RejectCode, type_name};

/// An object and where it stands in the body.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    pointer: String,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which stands at `pointer`.
    ///
    /// # Errors
    /// It is not an object.
    pub fn new(value: &'a Value, pointer: &str) -> Result<Self, Fault> {
        match value {
            Value::Object(object) => Ok(Self {
                object,
                pointer: pointer.to_owned(),
            }),
            other => {
                let detail = format!("expected an object, found {}", type_name(other));
                Err(Fault::new(RejectCode::Malformed, pointer, detail))
            }
        }
    }

    /// JSON pointer of a field.
    #[must_use]
    pub fn pointer(&self, name: &str) -> String {
        format!(
            "{}/{}",
            self.pointer,
            name.replace('~', "~0").replace('/', "~1")
        )
    }

    /// A fault about a field.
    #[must_use]
    pub fn fault(&self, code: RejectCode, name: &str, detail: impl Into<String>) -> Fault {
        Fault::new(code, self.pointer(name), detail)
    }

    /// The value of a field, unless absent or `null`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Turns an absent field into a fault.
    ///
    /// # Errors
    /// The field is absent.
    pub fn required<T>(&self, name: &str, field: Option<T>) -> Result<T, Fault> {
        field.ok_or_else(|| self.fault(RejectCode::Malformed, name, "the field is missing"))
    }

    /// A text.
    ///
    /// # Errors
    /// Another type.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        self.typed(name, "a text", Value::as_str)
    }

    /// An identifier.
    ///
    /// # Errors
    /// Another type, or refused by [`shared_model::ids::check_id`].
    pub fn id<T>(&self, name: &str) -> Result<Option<T>, Fault>
    where
        T: TryFrom<String, Error = IdError>,
    {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match T::try_from(text.to_owned()) {
            Ok(id) => Ok(Some(id)),
            Err(error) => Err(self.fault(RejectCode::Malformed, name, error.to_string())),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Another type, a fraction, or out of range.
    pub fn i64(&self, name: &str) -> Result<Option<i64>, Fault> {
        self.typed(name, "a whole number", Value::as_i64)
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// Another type, a fraction, or out of range.
    pub fn u64(&self, name: &str) -> Result<Option<u64>, Fault> {
        self.typed(name, "a whole number of at least 0", Value::as_u64)
    }

    /// A number.
    ///
    /// # Errors
    /// Another type.
    pub fn f64(&self, name: &str) -> Result<Option<f64>, Fault> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// Another type.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, Fault> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    /// A list.
    ///
    /// # Errors
    /// Another type.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Fault> {
        self.typed(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => {
                let mut found = value.to_string();
                if found.len() > 40 {
                    found = type_name(value).to_owned();
                }
                let detail = format!("expected {expected}, found {found}");
                Err(self.fault(RejectCode::Malformed, name, detail))
            }
        }
    }
}
