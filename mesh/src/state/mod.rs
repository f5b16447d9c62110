//! What is keyed and changes seldom, in redb.
