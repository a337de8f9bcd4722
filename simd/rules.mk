# The instruction sets of libnpkv. Only these objects may be built with -m flags; dispatch.c decides who runs them.
# Contraction is off everywhere: a fused product is written as one, so that npkv_pair() is the same on every level.
SIMD_FLAGS := -ffp-contract=off -fno-math-errno

$(B)/simd/%.o $(B)/simd/%.pic.o: ARCH_FLAGS = $(SIMD_FLAGS)
$(B)/simd/exact.o $(B)/simd/exact.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) -O3
$(B)/simd/scalar.o $(B)/simd/scalar.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) -fno-tree-vectorize
$(B)/simd/crc_x86.o $(B)/simd/crc_x86.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) -msse4.2
$(B)/simd/avx2.o $(B)/simd/avx2.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) -mavx2 -mfma -mf16c
AVX512_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
$(B)/simd/avx512.o $(B)/simd/avx512.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS)
$(B)/simd/avx512_vnni.o $(B)/simd/avx512_vnni.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) -mavx512vnni
$(B)/simd/avx512_vpopcnt.o $(B)/simd/avx512_vpopcnt.pic.o: ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) -mavx512vpopcntdq
