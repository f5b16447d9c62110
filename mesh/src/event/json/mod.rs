//! The JSON event format (CloudEvents JSON format 1.0.2), one event and batches.
//!
//! The payload is never parsed into numbers and back: JSON `data` is the very bytes that stood in the message (`1.10`, integers
//! of 20 digits and the order of keys survive), and is written again as it is. Data without JSON is a string where its type is
//! text, else base64. A name that occurs twice in one event is refused, since two readers could see two events.
//! Where `data` has no `datacontenttype` it is JSON, and the attribute is set so (section 3.1).

mod decode;
mod encode;

pub use decode::{decode, decode_batch};
pub use encode::{encode, encode_batch};

pub(crate) use decode::{Data, Located, locate, unbase64, unescape};
