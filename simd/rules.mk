# The instruction sets of libnpkv. Only these objects may be built with -m flags; dispatch.c decides who runs them.
# Contraction is off everywhere: a fused product is written as one, so that npkv_pair() is the same on every level.
SIMD_FLAGS := -ffp-contract=off -fno-math-errno

AVX512_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
simd_arch := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
simd_obj = $(B)/simd/$(1).o $(B)/simd/$(1).pic.o

$(call simd_obj,%): ARCH_FLAGS = $(SIMD_FLAGS)
$(call simd_obj,exact): ARCH_FLAGS = $(SIMD_FLAGS) -O3
$(call simd_obj,scalar): ARCH_FLAGS = $(SIMD_FLAGS) -fno-tree-vectorize
ifeq ($(simd_arch),x86_64)
$(call simd_obj,crc_x86): ARCH_FLAGS = $(SIMD_FLAGS) -msse4.2
$(call simd_obj,avx2): ARCH_FLAGS = $(SIMD_FLAGS) -mavx2 -mfma -mf16c
$(call simd_obj,avx512): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS)
$(call simd_obj,avx512_vnni): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) -mavx512vnni
$(call simd_obj,avx512_vpopcnt): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) -mavx512vpopcntdq
endif
ifeq ($(simd_arch),aarch64)
$(call simd_obj,crc_arm): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8-a+crc
$(call simd_obj,neon_dot): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8.2-a+dotprod
$(call simd_obj,sve): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8.2-a+sve
endif
