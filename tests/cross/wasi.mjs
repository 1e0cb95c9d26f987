import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';
// wasi.mjs MODULE [ARGUMENT]...: runs a WebAssembly program with this environment and its exit status.
const [file, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [file, ...rest], env: process.env, preopens: { '.': '.' } });
const module = await WebAssembly.compile(readFileSync(file));
const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi.wasiImport });
process.exitCode = wasi.start(instance);
