//! One file for each subject.

mod smoke;
