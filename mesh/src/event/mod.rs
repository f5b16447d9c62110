//! The CloudEvents 1.0 event, its codecs and its stored form.
