//! What a loaded network says about itself: names and values of its hyper-parameters, read from its layers.
//!
//! Sizes are those of the loaded tensors, counts those of the layers, functions and constants those that the code uses; the
//! names are the same for every implementation of a network.

/// Name → value.
pub type Hyperparameters = Vec<(&'static str, Value)>;

/// A hyper-parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A size, a count or an id.
    Whole(usize),
    /// A real number.
    Real(f64),
    /// Whether there is something.
    Bool(bool),
    /// A name.
    Text(&'static str),
    /// Several sizes or counts.
    Wholes(Vec<usize>),
    /// Several real numbers.
    Reals(Vec<f64>),
}

/// The number that is written as `value` is: 0.1 for the float32 next to 0.1.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

macro_rules! from {
    ($($from:ty => $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                $to(value)
            }
        })*
    };
}

from! {
    usize => Value::Whole;
    f64 => Value::Real;
    f32 => |value| Value::Real(decimal(value));
    bool => Value::Bool;
    &'static str => Value::Text;
    Vec<usize> => Value::Wholes;
    Vec<f32> => |values: Vec<f32>| Value::Reals(values.into_iter().map(decimal).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float32_is_the_number_that_it_stands_for() {
        assert_eq!(Value::from(0.1f32), Value::Real(0.1));
        assert_eq!(Value::from(vec![0.003f32, 0.5]), Value::Reals(vec![0.003, 0.5]));
        assert_eq!(Value::from(f32::MIN_POSITIVE), Value::Real(1.1754944e-38));
    }
}
