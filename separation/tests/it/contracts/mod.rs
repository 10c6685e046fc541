//! Models of every tensor contract, run by ONNX Runtime from files to files, agree with the definition of their program
//! in double precision: to 1e-4 of full scale, and to 2e-3 with tensors of 16 bits.

mod bench;
mod long_songs;
mod oracle;
mod spectra;
mod spectrum_models;
mod toy;
mod waveform_models;
