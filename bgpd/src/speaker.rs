//! Sessions and tables as one machine.
