//! What an auditor is shown.

mod audit;
mod evidence;
mod verify;
