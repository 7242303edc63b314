//! The protocols of loopless on its store, checked exhaustively. What runs is the code that ships.
#![warn(missing_docs)]

#[cfg(test)]
mod event;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod replay;
