// An array of a mounted store from Node: save, read, append, drop, search, write in place, a transaction.
//
//     node contrib/examples/tour.mjs MOUNTPOINT        # mounted read-write; writes the arrays `tour` and `kept`
//
// A command is carried out when the write returns: a refused one throws, and last_error says why. Node has no mmap: it
// reads what it wants at an offset. For headers of any dtype take a library, such as npyjs (tests/clients/node).
import fs from 'node:fs';
import process from 'node:process';

if (process.argv.length !== 3) {
  console.error(`usage: ${process.argv[1]} MOUNTPOINT`);
  process.exit(2);
}
const mountpoint = process.argv[2];
const control = `${mountpoint}/.numpack/arrays/tour`;
const shape = (name) => fs.readFileSync(`${mountpoint}/.numpack/arrays/${name}/shape`, 'utf8').trim();

// Rows of i, i * i and 1.
function rows(first, last) {
  const values = [];
  for (let i = first; i < last; i++) values.push(i, i * i, 1);
  return Float32Array.from(values);
}

// What numpy.save() writes of float32 rows: 128 bytes of header, then the elements.
function npy(values, columns) {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${values.length / columns}, ${columns}), }`;
  const header = Buffer.from(`\x93NUMPY\x01\x00v\x00${text.padEnd(117)}\n`, 'latin1');
  return Buffer.concat([header, Buffer.from(values.buffer)]);
}

try {
  fs.writeFileSync(`${mountpoint}/tour.npy`, npy(rows(0, 6), 3));
  console.log('saved', shape('tour'));

  const file = fs.readFileSync(`${mountpoint}/tour.npy`);
  let sum = 0;
  for (let at = 10 + file.readUInt16LE(8); at < file.length; at += 4) sum += file.readFloatLE(at);
  console.log('sum', sum);

  fs.writeFileSync(`${control}/append`, npy(rows(6, 8), 3));
  console.log('appended', shape('tour'));

  fs.writeFileSync(`${control}/drop`, '0,-1\n');
  console.log('dropped', shape('tour'));

  let fd = fs.openSync(`${control}/search`, 'r+'); // what is written is answered on the same handle
  fs.writeSync(fd, 'k=2 metric=l2sq row=0 fmt=json\n');
  const answer = Buffer.alloc(65536);
  const length = fs.readSync(fd, answer, 0, answer.length, null);
  for (const { index, score } of JSON.parse(answer.subarray(0, length)).hits) console.log('near', index, score);
  fs.closeSync(fd);

  fd = fs.openSync(`${mountpoint}/tour.npy`, 'r+');
  const element = Buffer.alloc(4);
  element.writeFloatLE(100);
  fs.writeSync(fd, element, 0, 4, 128 + 4 * 2); // row 0, column 2
  fs.readSync(fd, element, 0, 4, 128 + 4 * 2);
  fs.closeSync(fd);
  console.log('wrote', element.readFloatLE());

  // A directory is a transaction: the whole tree again. Nobody outside sees what is done in it before the commit.
  const transaction = `${mountpoint}/.numpack/batch/tour.${process.pid}`;
  fs.mkdirSync(transaction);
  fs.copyFileSync(`${transaction}/tour.npy`, `${transaction}/kept.npy`);
  fs.writeFileSync(`${transaction}/.numpack/arrays/tour/drop`, '0:2\n');
  fs.writeFileSync(`${transaction}/ctl`, 'commit\n');
  for (const name of ['kept', 'tour']) console.log(name, shape(name));
} catch (e) {
  console.error(e.message);
  process.exit(1);
}
