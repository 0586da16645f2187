//! Mistakes that are made on purpose.

/// A mistake that is made on purpose, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// None.
    Nothing,
    /// A browser forgets a command when it is accepted, instead of when it is durable.
    ForgetWhenAccepted,
    /// A page shows its own changes on what it was shown before, instead of on what the server says now.
    SkipRebase,
    /// A browser takes the records of another history for records of its own.
    IgnoreEpoch,
    /// Every tab leads, whoever holds the lock, and the storage takes what each of them writes.
    IgnoreLock,
    /// A tab that was closed and opened again goes on under its client id, with the numbers after what it finds.
    KeepClientIds,
    /// The database does not compare the version before it writes.
    WriteWithoutComparing,
    /// A server that starts forgets which numbers were applied.
    ForgetNumbers,
    /// A server whose tail lost against another history forgets the commands in it, and tells everybody that all is well.
    ForgetForks,
    /// The shared tier compares versions only, not histories.
    ShareWithoutComparing,
}

impl Plant {
    /// Every mistake.
    pub const ALL: [Self; 9] = [
        Self::ForgetWhenAccepted,
        Self::SkipRebase,
        Self::IgnoreEpoch,
        Self::IgnoreLock,
        Self::KeepClientIds,
        Self::WriteWithoutComparing,
        Self::ForgetNumbers,
        Self::ForgetForks,
        Self::ShareWithoutComparing,
    ];
}
