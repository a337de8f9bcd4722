// The five rows most like row ROW of an array of a mounted store: a line each, its index and its cosine.
//
//     node contrib/examples/search.mjs MOUNTPOINT ARRAY ROW
import fs from 'node:fs';

// What the handle has to say, to its end. Position null: go on where the last write or read ended.
function readAnswer(fd) {
  const pieces = [];
  const buffer = Buffer.alloc(65536);
  for (let n; (n = fs.readSync(fd, buffer, 0, buffer.length, null)) > 0; ) pieces.push(Buffer.from(buffer.subarray(0, n)));
  return Buffer.concat(pieces).toString();
}

const [mountpoint, array, row] = process.argv.slice(2);
if (process.argv.length !== 5) {
  console.error(`usage: ${process.argv[1]} MOUNTPOINT ARRAY ROW`);
  process.exit(2);
}
const fd = fs.openSync(`${mountpoint}/.numpack/arrays/${array}/search`, 'r+');
try {
  fs.writeSync(fd, `k=5 metric=cosine row=${row} fmt=json\n`);
} catch {
  console.error(readAnswer(fd).trim()); // a refused query says why on the same handle
  process.exit(1);
}
for (const { index, score } of JSON.parse(readAnswer(fd)).hits) console.log(index, score);
fs.closeSync(fd);
