# The instruction sets of libnpkv. Only these objects may be built with -m flags; dispatch.c decides who runs them.
# Contraction is off everywhere: a fused product is written as one, so that npkv_pair() is the same on every level.
SIMD_FLAGS := -ffp-contract=off -fno-math-errno

AVX512_FLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
simd_arch := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
simd_obj = $(B)/simd/$(1).o $(B)/simd/$(1).pic.o

$(call simd_obj,%): ARCH_FLAGS = $(SIMD_FLAGS)
$(call simd_obj,exact): ARCH_FLAGS = $(SIMD_FLAGS) -O3 -fno-trapping-math
$(call simd_obj,scalar): ARCH_FLAGS = $(SIMD_FLAGS) -fno-tree-vectorize
VNNI_FLAGS := -mavx512vnni
VPOPCNT_FLAGS := -mavx512vpopcntdq
ifeq ($(MODE),simde) # what few CPUs have, by other instructions
VNNI_FLAGS := -DSIMDE_ENABLE_NATIVE_ALIASES -include simde/x86/avx512/dpbusd.h
VPOPCNT_FLAGS := -DSIMDE_ENABLE_NATIVE_ALIASES -include simde/x86/avx512/popcnt.h
endif
ifeq ($(simd_arch),x86_64)
$(call simd_obj,crc_x86): ARCH_FLAGS = $(SIMD_FLAGS) -msse4.2
$(call simd_obj,crc_clmul): ARCH_FLAGS = $(SIMD_FLAGS) -mpclmul
$(call simd_obj,avx2): ARCH_FLAGS = $(SIMD_FLAGS) -mavx2 -mfma -mf16c
$(call simd_obj,avx512): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS)
$(call simd_obj,avx512_vnni): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) $(VNNI_FLAGS)
$(call simd_obj,avx512_vpopcnt): ARCH_FLAGS = $(SIMD_FLAGS) $(AVX512_FLAGS) $(VPOPCNT_FLAGS)
endif
ifeq ($(simd_arch),aarch64)
$(call simd_obj,crc_arm): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8-a+crc
$(call simd_obj,neon_dot): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8.2-a+dotprod
$(call simd_obj,sve): ARCH_FLAGS = $(SIMD_FLAGS) -march=armv8.2-a+sve
endif
