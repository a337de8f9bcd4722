// Reads .npy files of a mount with an ordinary Node library and prints what it got, one JSON object a line.
import fs from 'node:fs';
import path from 'node:path';
import { parse } from 'npyjs';

for (const file of process.argv.slice(2)) {
  const bytes = fs.readFileSync(file);
  const { data, shape, dtype } = parse(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  let sum = 0;
  for (const value of data) sum += Number(value);
  console.log(JSON.stringify({ name: path.basename(file), dtype, shape, sum, last: Number(data[data.length - 1]) }));
}
