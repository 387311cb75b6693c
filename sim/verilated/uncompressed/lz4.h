// What Verilator's FST writer needs of LZ4, without compressing: a block of literals only. The
// library's headers aren't on every machine, and a waveform is worth having on each.
// Format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
#pragma once

#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
  if (capacity < LZ4_compressBound(size)) return 0;
  char* out = target;
  // The token's upper half is the number of literals; 15 means that bytes of 255 follow.
  if (size < 15) {
    *out++ = static_cast<char>(size << 4);
  } else {
    *out++ = static_cast<char>(0xF0);
    int rest = size - 15;
    for (; rest >= 255; rest -= 255) *out++ = static_cast<char>(255);
    *out++ = static_cast<char>(rest);
  }
  std::memcpy(out, source, size);
  return static_cast<int>(out - target) + size;
}
