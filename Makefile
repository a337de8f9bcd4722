# numpackfs: see `make help`. Objects go to build/$(MODE)/, so that modes live side by side.
MODE    ?= release
B       := build/$(MODE)
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := $(shell sed -n 's/^.define NPK_VERSION "\(.*\)"/\1/p' engine/numpack.h)
SOMAJOR := 0
PYTHON  ?= python3
VENV    := build/venv
PY      := $(VENV)/bin/python

CC.release := gcc
CC.clang   := clang
CC.asan    := gcc
CC.tsan    := gcc
CC.fuzz    := clang
CC.aarch64 := aarch64-linux-gnu-gcc
CC.simde   := gcc
MODEFLAGS.release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
MODEFLAGS.clang   := $(MODEFLAGS.release)
MODEFLAGS.asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
MODEFLAGS.tsan    := -O1 -fsanitize=thread -fno-omit-frame-pointer
MODEFLAGS.fuzz    := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
MODEFLAGS.aarch64 := $(MODEFLAGS.release)
MODEFLAGS.simde   := $(MODEFLAGS.release) -DNPKV_EMULATED
CC      := $(or $(CC.$(MODE)),$(error MODE is one of release, clang, asan, tsan, fuzz, aarch64, simde))
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes \
	   -Wpointer-arith -Wvla $(if $(WERROR),-Werror)
BASE    := -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -g -fPIC -pthread -fno-common \
	   -ffile-prefix-map=$(CURDIR)/= -Iengine -Isimd $(WARN) $(MODEFLAGS.$(MODE))
LINK    := -pthread -Wl,-z,relro,-z,now -Wl,--as-needed $(filter -fsanitize=%,$(subst fuzzer-no-link$(comma),,$(MODEFLAGS.$(MODE))))
comma   := ,
# Looked up when a recipe runs, not before: `make test` may have to install pkg-config first.
FUSE_CFLAGS = $(shell pkg-config --cflags fuse3 inih)
FUSE_LIBS   = $(shell pkg-config --libs fuse3 inih)
ENGINE_LIBS = $(shell pkg-config --libs libzstd zlib) -lm
CMOCKA_LIBS = $(shell pkg-config --libs cmocka)

src = $(sort $(wildcard $(1)/*.c))
obj = $(patsubst %.c,$(B)/%.o,$(1))
LIB_OBJ   := $(call obj,$(call src,engine) $(call src,simd))
FS_OBJ    := $(call obj,$(call src,fs))
TOOLS_OBJ := $(call obj,$(call src,tools))
TEST_SRC  := $(sort $(wildcard tests/unit/test_*.c tests/prop/test_*.c tests/crash/test_*.c tests/faults/test_*.c tests/kernels/test_*.c))
TEST_BIN  := $(patsubst %.c,$(B)/%,$(TEST_SRC))
BENCH_BIN := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/bench/bench_*.c tests/kernels/bench_*.c)))
BENCHES   := bench-read bench-write bench-python bench-io bench-pack bench-search
FUZZ_BIN  := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
OUR_C     := $(sort $(wildcard engine/*.[ch] fs/*.[ch] simd/*.[ch] tools/*.[ch] tests/*/*.[ch] contrib/examples/*.c contrib/python/*/*.c))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all help demo test test-extras check check-asan check-tsan check-clang check-layers check-symbols check-format format tidy \
	fuzz bench bench-needs $(BENCHES) install uninstall dist clean deps deps-dev

all: $(B)/libnumpack.so $(B)/libnumpack.a $(B)/numpackfs $(B)/npk $(B)/_fast.abi3.so ## the library, numpackfs and npk

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

# --- building ---------------------------------------------------------------------------------------------------------

include $(wildcard simd/rules.mk)

$(B)/%.o: %.c | $(B)/.deps
	@mkdir -p $(@D)
	$(CC) $(BASE) $(ARCH_FLAGS) $(UNIT_FLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(FS_OBJ): UNIT_FLAGS = $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314
$(B)/tests/%.o: UNIT_FLAGS = -Itests -Ifs
$(B)/tests/fuzz/fuzz_words.o: UNIT_FLAGS = -Itests -Ifs $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314

$(B)/libnumpack.a: $(LIB_OBJ)
	$(AR) rcsD $@ $^

$(B)/libnumpack.so: $(LIB_OBJ) engine/libnumpack.map
	$(CC) -shared -Wl,-soname,libnumpack.so.$(SOMAJOR) -Wl,--version-script=engine/libnumpack.map \
		-Wl,-Bsymbolic-functions $(LINK) $(LDFLAGS) -o $@ $(LIB_OBJ) $(ENGINE_LIBS)
	ln -sf libnumpack.so $@.$(SOMAJOR)

$(B)/numpackfs: $(FS_OBJ) $(B)/libnumpack.a
	$(CC) -pie $(LINK) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(ENGINE_LIBS)

$(B)/npk: $(TOOLS_OBJ) $(B)/libnumpack.a
	$(CC) -pie $(LINK) $(LDFLAGS) -o $@ $^ $(ENGINE_LIBS)

# What the Python package is faster with and works without: left out where $(PYTHON) is older than 3.11 or has no headers.
PY_INCLUDE = $(shell $(PYTHON) -c 'import sys, sysconfig; sys.version_info < (3, 11) or print(sysconfig.get_path("include"))' 2>/dev/null)
$(B)/_fast.abi3.so: contrib/python/numpackfs/_fast.c engine/numpack.h | $(B)/.deps
	@d="$(PY_INCLUDE)"; if [ ! -f "$$d/Python.h" ]; then echo "without $@: no Python.h of $(PYTHON) 3.11 or later"; else set -x; \
		$(CC) $(BASE) $(CFLAGS) -isystem "$$d" -shared $(LINK) $(LDFLAGS) -o $@ $<; fi

# A .c file of a tests directory that is no program of its own is linked into all the programs there.
helpers = $(call obj,$(filter-out $(1)test_%.c $(1)bench_%.c $(1)fuzz_%.c,$(sort $(wildcard $(1)*.c))))
.SECONDEXPANSION:

$(TEST_BIN): $(B)/%: $(B)/%.o $$(call helpers,$$(dir $$*)) $(B)/libnumpack.a
	$(CC) -pie $(LINK) $(LDFLAGS) -o $@ $^ $(CMOCKA_LIBS) $(ENGINE_LIBS)

# The kernels' checks by themselves, for CPUs that tests/kernels/test_emulated.py lends them.
BARE := $(B)/tests/kernels/bare_kernels
$(B)/tests/kernels/bare.o: tests/kernels/test_kernels.c | $(B)/.deps
	@mkdir -p $(@D)
	$(CC) $(BASE) -DNPKV_NO_CMOCKA -Itests $(CFLAGS) -MMD -MP -c -o $@ $<

$(BARE): $(B)/tests/kernels/bare.o $(call helpers,tests/kernels/) $(call obj,$(call src,simd))
	$(CC) -static $(LINK) $(LDFLAGS) -o $@ $^ -lm

$(BENCH_BIN): $(B)/%: $(B)/%.o $$(call helpers,$$(dir $$*)) $(B)/libnumpack.a
	$(CC) -pie $(LINK) $(LDFLAGS) -o $@ $^ $(ENGINE_LIBS)

$(FUZZ_BIN): $(B)/%: $(B)/%.o $(B)/libnumpack.a
	$(CC) -pie -fsanitize=fuzzer $(LINK) $(LDFLAGS) -o $@ $^ $(ENGINE_LIBS)

-include $(shell find $(B) -path '$(B)/run-*' -prune -o -type f -name '*.d' -print 2>/dev/null)

# --- what must be installed -------------------------------------------------------------------------------------------

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT_GET := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
DEPS := gcc libc6-dev pkg-config libfuse3-dev fuse3 libzstd-dev zlib1g-dev libinih-dev libcmocka-dev python3 python3-dev python3-venv \
	libopenblas0-pthread rsync attr util-linux procps vim-tiny zstd git file perl-base qemu-user gcc-aarch64-linux-gnu \
	libc6-dev-arm64-cross libsimde-dev
DEPS_DEV := clang clang-format clang-tidy libclang-rt-14-dev valgrind fio
HAVE_DEPS := $(CC) --version >/dev/null && pkg-config --exists fuse3 inih libzstd zlib cmocka && \
	$(PYTHON) -c 'import ensurepip, venv' && { command -v vim || command -v vim.tiny; } >/dev/null && \
	(for p in fusermount3 rsync getfattr zstd git file perl go npm qemu-aarch64; do command -v $$p || exit; done) >/dev/null && \
	aarch64-linux-gnu-gcc -print-file-name=libc.a | grep -q / && echo | $(CC) -E -include simde/hedley.h - >/dev/null

# demo and test fetch what is missing; everything else only says so. The library alone, as pip builds it, needs less than the rest.
$(B)/.deps:
	@mkdir -p $(@D)
	@if { $(HAVE_DEPS); } 2>/dev/null; then :; \
	elif [ -n "$(filter demo test,$(MAKECMDGOALS))" ]; then $(MAKE) --no-print-directory deps; \
	elif { $(CC) --version >/dev/null && pkg-config --exists fuse3 inih libzstd zlib; } 2>/dev/null; then :; \
	elif [ "$(MAKECMDGOALS)" = $(B)/libnumpack.so ] && { $(CC) --version >/dev/null && pkg-config --exists libzstd zlib; } 2>/dev/null; \
	then exit 0; \
	else echo "missing: a compiler, pkg-config, or the development files of fuse3, inih, zstd, zlib: run 'make deps'" >&2; exit 1; fi
	@touch $@

deps: ## get what is missing from the distribution (Debian and its family)
	@command -v apt-get >/dev/null || { echo "make deps knows apt only; install with your package manager: $(DEPS), Go and Node.js" >&2; exit 1; }
	$(APT_GET) update -qq
	$(APT_GET) install -y -qq --no-install-recommends $(DEPS) \
		$$(command -v go >/dev/null || echo golang-go) $$(command -v npm >/dev/null || echo nodejs npm)

deps-dev: deps ## also the tools of check-clang, check-format, tidy and fuzz
	$(APT_GET) install -y -qq --no-install-recommends $(DEPS_DEV)

$(VENV)/.ok: tests/requirements.txt tests/real_numpack.py | $(B)/.deps
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	$(PY) tests/real_numpack.py
	@touch $@

# --- running ----------------------------------------------------------------------------------------------------------

demo: all ## build, make a store, mount it, show numpy reading it
	@$(MAKE) --no-print-directory $(VENV)/.ok
	@PATH="$(CURDIR)/$(B):$$PATH" PYTHON=$(PY) sh tests/demo.sh

# Runs everything in the mode's build and ends with "N passed, N failed, N skipped".
RUN_TESTS = $(PY) tests/run.py --build $(B)

test: all $(TEST_BIN) $(VENV)/.ok ## build and run every test
	$(RUN_TESTS)

# A second environment: what these bring has nothing to do with the rest.
EXTRAS := build/venv-extras
$(EXTRAS)/.ok: contrib/python/tests/requirements.txt | $(B)/.deps
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

test-extras: all $(EXTRAS)/.ok ## the Python converters and examples on the libraries they are for (PyTorch, pandas, ...), a store on JuiceFS
	NPK_BUILD=$(B) LIBNUMPACK=$(CURDIR)/$(B)/libnumpack.so PYTHONPATH=$(CURDIR)/contrib/python \
		$(EXTRAS)/bin/python -m pytest -q -p no:cacheprovider --timeout=600 contrib/python/tests

check-asan: ## the same suites under AddressSanitizer and UndefinedBehaviorSanitizer
	$(MAKE) --no-print-directory MODE=asan check

check-tsan: ## the same suites under ThreadSanitizer
	$(MAKE) --no-print-directory MODE=tsan check

check-clang: ## the same suites built by clang
	$(MAKE) --no-print-directory MODE=clang check

check: all $(TEST_BIN) $(VENV)/.ok # what test does, without installing anything
	$(RUN_TESTS)

check-layers: all ## fs -> engine -> simd, tools -> engine, nothing upward
	sh tests/check_layers.sh $(B)

check-symbols: all ## every global name has its part's prefix
	sh tests/check_symbols.sh $(B)

check-format: ## clang-format has nothing to say
	clang-format --dry-run --Werror $(OUR_C)

format:
	clang-format -i $(OUR_C)

tidy: | $(B)/.deps ## clang-tidy has nothing to say
	clang-tidy --quiet $(filter-out simd/% tests/%,$(filter %.c,$(OUR_C))) -- $(filter-out -g -fPIC,$(BASE)) $(FUSE_CFLAGS) -isystem $(PY_INCLUDE) -DFUSE_USE_VERSION=314 -Itests -Ifs

FUZZ_RUNS ?= 10000000
fuzz: ## each fuzz target for FUZZ_RUNS executions (10 million)
	$(MAKE) --no-print-directory MODE=fuzz fuzz-run FUZZ_RUNS=$(FUZZ_RUNS)

.PHONY: fuzz-run
fuzz-run: $(FUZZ_BIN)
	@set -e; for f in $(FUZZ_BIN); do n=$${f##*/fuzz_}; mkdir -p $(B)/corpus/$$n; echo "fuzz $$n"; \
		$$f -artifact_prefix=$(B)/ -runs=$(FUZZ_RUNS) -max_len=4096 -print_final_stats=1 $(B)/corpus/$$n tests/fuzz/corpus/$$n 2>$(B)/fuzz_$$n.log \
		|| { tail -40 $(B)/fuzz_$$n.log; exit 1; }; tail -n 6 $(B)/fuzz_$$n.log; done

# Each measures this version and its named peers in turn, in one run, and writes a table, JSON and a picture to build/bench/.
bench: ## all of these in turn: ratios against named peers, a table and JSON in build/bench/
	for b in $(BENCHES); do $(MAKE) --no-print-directory $$b || exit 1; done

bench-needs: all $(BENCH_BIN) $(VENV)/.ok
	$(PY) -m pip install -q --disable-pip-version-check -r tests/bench/requirements.txt

bench-read: bench-needs ## reading, by the library and through a mount, against numpy, NumPack, h5py, zarr and others
	$(PY) tests/bench/bench.py --build $(B) --out build/bench $(BENCH_ARGS)

bench-write: bench-needs ## saving and changing, against numpy and NumPack
	$(PY) tests/bench/bench_write.py --build $(B) --out build/bench $(BENCH_WRITE_ARGS)

bench-python: bench-needs ## the Python package, against numpy, NumPack and others
	$(PY) tests/bench/bench_python.py --build $(B) --out build/bench $(BENCH_PYTHON_ARGS)

bench-io: all $(VENV)/.ok ## files in and out against numpy, pandas, polars and safetensors
	$(PY) -m pip install -q --disable-pip-version-check -r tests/bench/requirements-io.txt
	$(PY) tests/bench/bench_io.py --build $(B) --out build/bench $(BENCH_IO_ARGS)

bench-pack: all $(VENV)/.ok ## packages of 1 GB against tar with zstd, and the real NumPack
	$(PY) tests/bench/bench_pack.py --build $(B) --out build/bench $(BENCH_PACK_ARGS)

bench-search: all $(BENCH_BIN) $(VENV)/.ok ## vector search against faiss, numpy and others
	$(PY) -m pip install -q --disable-pip-version-check -r tests/bench/requirements-search.txt
	$(PY) tests/bench/bench_search.py --build $(B) --out build/bench --picture build/bench/search.svg $(BENCH_SEARCH_ARGS)

# --- installing -------------------------------------------------------------------------------------------------------

I := $(DESTDIR)$(PREFIX)
LIBDIR ?= lib
# Where systemd looks below /usr and /usr/local; what it runs is named by its path, for other prefixes are not in its own.
UNITDIR ?= lib/systemd/system
COMPLETION_DIRS := bash-completion/completions zsh/site-functions fish/vendor_completions.d
MAN1 := $(sort $(wildcard fs/*.1 tools/*.1))
MAN5 := $(sort $(wildcard fs/*.5))
MAN7 := $(sort $(wildcard fs/*.7))

install: all ## to $(DESTDIR)$(PREFIX)
	install -d $(I)/bin $(I)/$(LIBDIR)/pkgconfig $(I)/include $(I)/share/man/man1 $(I)/share/man/man5 $(I)/share/man/man7
	install -m 755 $(B)/numpackfs $(B)/npk $(I)/bin
	install -m 755 $(B)/libnumpack.so $(I)/$(LIBDIR)/libnumpack.so.$(VERSION)
	ln -sf libnumpack.so.$(VERSION) $(I)/$(LIBDIR)/libnumpack.so.$(SOMAJOR)
	ln -sf libnumpack.so.$(SOMAJOR) $(I)/$(LIBDIR)/libnumpack.so
	install -m 644 $(B)/libnumpack.a $(I)/$(LIBDIR)
	install -m 644 engine/numpack.h $(I)/include
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' engine/libnumpack.pc.in \
		> $(I)/$(LIBDIR)/pkgconfig/libnumpack.pc
	$(if $(MAN1),install -m 644 $(MAN1) $(I)/share/man/man1)
	$(if $(MAN5),install -m 644 $(MAN5) $(I)/share/man/man5)
	$(if $(MAN7),install -m 644 $(MAN7) $(I)/share/man/man7)
	install -d $(I)/sbin $(addprefix $(I)/share/,$(COMPLETION_DIRS))
	ln -sf ../bin/numpackfs $(I)/sbin/mount.numpackfs
	ln -sf ../bin/npk $(I)/sbin/umount.fuse.numpackfs
	for p in numpackfs npk; do \
		install -m 644 contrib/completions/$$p.bash $(I)/share/bash-completion/completions/$$p && \
		install -m 644 contrib/completions/$$p.fish $(I)/share/fish/vendor_completions.d || exit 1; done
	install -m 644 contrib/completions/_numpackfs $(I)/share/zsh/site-functions
	install -m 644 contrib/completions/npk.zsh $(I)/share/zsh/site-functions/_npk
	install -d $(I)/$(UNITDIR)
	sed -e 's|^ExecStart=numpackfs |ExecStart=$(PREFIX)/bin/numpackfs |' 'contrib/systemd/numpackfs@.service' > '$(I)/$(UNITDIR)/numpackfs@.service'
	chmod 644 '$(I)/$(UNITDIR)/numpackfs@.service'

uninstall: ## what install put there
	rm -f $(I)/sbin/mount.numpackfs $(I)/sbin/umount.fuse.numpackfs $(foreach p,numpackfs npk,$(addprefix $(I)/share/,bash-completion/completions/$(p) \
		zsh/site-functions/_$(p) fish/vendor_completions.d/$(p).fish))
	rm -f $(I)/bin/numpackfs $(I)/bin/npk $(I)/$(LIBDIR)/libnumpack.* $(I)/$(LIBDIR)/pkgconfig/libnumpack.pc $(I)/include/numpack.h
	rm -f '$(I)/$(UNITDIR)/numpackfs@.service'
	rm -f $(addprefix $(I)/share/man/man1/,$(notdir $(MAN1))) $(addprefix $(I)/share/man/man5/,$(notdir $(MAN5))) \
		$(addprefix $(I)/share/man/man7/,$(notdir $(MAN7)))

dist: ## a source archive of HEAD in build/
	mkdir -p build
	git archive --format=tar.gz --prefix=numpackfs-$(VERSION)/ -o build/numpackfs-$(VERSION).tar.gz HEAD

clean: ## remove build/
	rm -rf build
