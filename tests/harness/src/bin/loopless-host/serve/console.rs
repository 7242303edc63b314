//! Prints what components print.

use anstream::adapter::strip_str;
use anstream::{eprintln, println};
use loopless_host::console::{Console, Line, Output};

use crate::style::DIM;

/// Forwards the output of the instances of `component` to the same stream of this process. Each line is marked with the
/// instance's number.
pub fn console(component: &'static str) -> Console {
    Console::new(move |line| {
        let Line {
            instance,
            output,
            text,
        } = line;
        let text = without_control(&text);
        match output {
            Output::Stdout => println!("{DIM}[{component} {instance}]{DIM:#} {text}"),
            Output::Stderr => eprintln!("{DIM}[{component} {instance}]{DIM:#} {text}"),
        }
    })
}

/// Removes escape sequences and control characters. So a component cannot move the cursor, for example to hide the mark.
fn without_control(text: &str) -> String {
    let is_visible = |character: &char| *character == '\t' || !character.is_control();
    let text = strip_str(text).to_string();
    text.chars().filter(is_visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_component_prints_cannot_control_the_terminal() {
        for (printed, shown) in [
            ("a\tb \u{fc}", "a\tb \u{fc}"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("mine\r[component 1] not mine", "mine[component 1] not mine"),
            ("\u{1b}[1A\u{1b}[2Kover\u{8}\u{9b}2J", "over2J"),
        ] {
            assert_eq!(without_control(printed), shown, "{printed:?}");
        }
    }
}
