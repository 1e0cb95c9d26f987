# The only makefile. Targets: all cuda check unit cli gates lint fuzz bench man install uninstall clean.
# O= and BINDIR= put objects and executables elsewhere; SAN=address,undefined builds with sanitizers there.
CC      ?= cc
SAN     ?=
O       ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
BINDIR  ?= $(if $(filter build,$(O)),bin,$(O)/bin)
PREFIX  ?= /usr/local
comma   := ,

# What is built, and whether it is for another architecture than this machine's (see cross).
ARCHS   := x86_64 aarch64 wasm32
ARCH    := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
HOSTCC  ?= cc
CROSS   := $(filter-out $(firstword $(subst -, ,$(shell $(HOSTCC) -dumpmachine))),$(ARCH))

OPT     ?= -O2 -g
WARN    := -std=c11 -Wall -Wextra -Werror -Wconversion -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes \
           -Wwrite-strings -Wundef
HARDEN  := $(if $(CROSS),,-fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2))
CFLAGS  := $(WARN) $(OPT) $(HARDEN) -ffp-contract=off -D_GNU_SOURCE -Ilib -I$(O)/gen $(if $(CROSS),-Itests/cross -Itests/cross/$(ARCH)) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
LDFLAGS := -pie -Wl,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN))
LIBS    := -ljansson -lpcre2-8 -lutf8proc -lcrypto -lxxhash -lz -lzstd -llz4 -lyaml -lpthread -lm
LIBS_apr-pull := -lcurl

# Files that begin with the name of an instruction set are compiled for its architecture only, with its flags;
# files that end with the name of an architecture, for that one only. Tables are picked at run time.
ISAS_x86_64  := sse4 avx2 avx512 avx512bf16
ISAS_aarch64 := neon dotprod
ISAS_wasm32  := simd128
ISA_sse4     := -mssse3 -msse4.1
ISA_avx2     := -mavx2 -mfma -mf16c
ISA_avx512   := $(ISA_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
ISA_avx512bf16 := $(ISA_avx512) -mavx512bf16
ISA_dotprod  := -march=armv8.2-a+dotprod
ISA_simd128  := -msimd128
isa_of        = $(foreach a,$(ARCHS),$(foreach i,$(ISAS_$(a)),$(if $(filter $(i) $(i)_% $(i).%,$(notdir $(1))),$(i))))
isa_flags     = $(foreach i,$(call isa_of,$<),$(ISA_$(i)) $(isa_opt))
isa_opt      := $(if $(SAN),-O1)# unrolled code under sanitizers takes minutes with -O2
foreign      := $(foreach a,$(filter-out $(ARCH),$(ARCHS)),$(foreach i,$(ISAS_$(a)),$(wildcard lib/*/$(i).c lib/*/$(i)_*.c)) \
                $(wildcard lib/*_$(a).c lib/*/*_$(a).c))

# Its vectors are passed by value between inlined functions only; gcc cannot be told so in the source.
$(O)/lib/quant/fit_base.o: CFLAGS += -Wno-psabi

# The CUDA plugin is built where nvcc is; nothing else needs it.
NVCC       ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_ARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | tr '\n' ' '),90)
CUDA_HOME  := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
NVCCFLAGS  := -std=c++17 -O3 -Ilib -Xcompiler -fPIC,-Wall,-Wextra,-Werror,-fvisibility=hidden \
              $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a))
CUDA_OBJ   := $(patsubst %.cu,$(O)/%.cu.o,$(wildcard lib/gpu/*.cu))

TOOLS   := $(notdir $(wildcard tools/apr-*))
# lib/contracts holds a program of the build machine, not library code.
LIB_SRC := $(filter-out lib/contracts/% $(foreign),$(wildcard lib/*.c lib/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(O)/%.o)
EXES    := $(foreach t,$(TOOLS),$(if $(wildcard tools/$(t)/main.c),$(BINDIR)/$(t)))
UNITS   := $(patsubst tests/unit/%.c,$(O)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
GEN     := $(O)/gen/verbs.h $(if $(wildcard lib/contracts/gen.c),$(O)/gen/contracts.h)

all: $(EXES) $(if $(and $(NVCC),$(if $(SAN),,1)),$(BINDIR)/apr-cuda.so) $(if $(filter bin,$(BINDIR)),,$(BINDIR)/apr $(BINDIR)/verbs)

# What --version shows.
$(O)/lib/help.o: CFLAGS += -DAPR_CFLAGS='"$(OPT) $(HARDEN)$(if $(SAN), -fsanitize=$(SAN))"'
$(O)/lib/help.o: $(O)/gen/verbs.h

$(O)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(isa_flags) -MMD -MP -c -o $@ $<

# The list of objects is a prerequisite, so that deleting a source file relinks.
$(O)/lib.list: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJ)' | cmp -s - $@ || echo '$(LIB_OBJ)' > $@
$(O)/libapr.a: $(LIB_OBJ) $(O)/lib.list
	@rm -f $@
	ar rcs $@ $(LIB_OBJ)

tool_obj = $(patsubst %.c,$(O)/%.o,$(wildcard tools/$(1)/*.c tools/$(1)/*/*.c))
define tool_rule
$(BINDIR)/$(1): $(call tool_obj,$(1)) $(O)/libapr.a
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS) -o $$@ $(call tool_obj,$(1)) $(O)/libapr.a $(LIBS) $(LIBS_$(1))
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t))))

# A build elsewhere gets its own dispatcher, table and way to the scripts.
ifneq ($(BINDIR),bin)
$(BINDIR)/apr $(BINDIR)/verbs: $(BINDIR)/%: bin/%
	@mkdir -p $(@D)
	cp $< $@
	@ln -sfn '$(CURDIR)/scripts' '$(BINDIR)/../scripts'
endif

$(O)/gen/verbs.h: bin/verbs scripts/gen-verbs
	@mkdir -p $(@D)
	scripts/gen-verbs < $< > $@.tmp && mv $@.tmp $@

# The generator runs on the build machine and turns lib/contracts/*.yaml into tables and _Static_asserts.
$(O)/gen-contracts: $(wildcard lib/contracts/*.[ch])
	@mkdir -p $(@D)
	$(if $(CROSS),$(HOSTCC),$(CC)) $(WARN) $(OPT) -D_GNU_SOURCE -o $@ $(filter %.c,$^) -lyaml
$(O)/gen/contracts.h: $(O)/gen-contracts $(wildcard lib/contracts/*.yaml)
	@mkdir -p $(@D)
	$(O)/gen-contracts $(sort $(wildcard lib/contracts/*.yaml)) > $@.tmp && mv $@.tmp $@

# A unit test may also link the objects of a tool: UNIT_OBJ_test_x = $(O)/tools/apr-infer/sample.o
$(UNITS): $(O)/unit/%: $(O)/tests/unit/%.o $(O)/libapr.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(UNIT_OBJ_$*) $(O)/libapr.a $(LIBS) -lcmocka
-include tests/unit/objects.mk

$(FUZZERS): $(O)/fuzz/%: tests/fuzz/%.c $(O)/libapr.a
	@mkdir -p $(@D)
	clang $(CFLAGS) -fsanitize=fuzzer -o $@ $< $(O)/libapr.a $(LIBS)

$(O)/%.cu.o: %.cu lib/gpu/gpu.h $(wildcard lib/gpu/*.cuh)
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -c -o $@ $<
$(BINDIR)/apr-cuda.so: $(CUDA_OBJ)
	@mkdir -p $(@D)
	$(NVCC) -shared -o $@ $^ -lcublasLt -Xlinker -rpath,$(CUDA_HOME)/lib64
cuda: $(BINDIR)/apr-cuda.so

gen: $(GEN)
# Programs that measure; they print and never judge.
BENCHES := $(patsubst tests/bench/%.c,$(O)/bench/%,$(wildcard tests/bench/bench_*.c))
BENCH_OBJ_bench_speculate = $(filter-out %/main.o,$(foreach o,$(call tool_obj,apr-infer),$(if $(findstring /verb_,$(o)),,$(o))))
$(O)/bench/bench_speculate: $(BENCH_OBJ_bench_speculate)
BENCH_OBJ_bench_gpu = $(patsubst %,$(O)/tests/bench/%.o,gpu_rig gpu_check)
$(O)/bench/bench_gpu: $(BENCH_OBJ_bench_gpu)
$(BENCHES): $(O)/bench/%: $(O)/tests/bench/%.o $(O)/libapr.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(BENCH_OBJ_$*) $(O)/libapr.a $(LIBS)
bench: $(BENCHES)
# Tests of the CUDA plugin, run by scripts/gpu-check.
GPU_TESTS := $(patsubst %.c,$(O)/%.o,$(wildcard tests/gpu/*.c tools/apr-infer/sampler/*.c))
$(O)/bench/hazards: $(GPU_TESTS) $(O)/libapr.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
bench: $(O)/bench/hazards

# The tests of kernels and quantizers alone, linked statically for another architecture with nothing but its C
# library: make CC=aarch64-linux-gnu-gcc O=build-aarch64 cross (scripts/test-cross runs them).
CROSS_UNITS := $(patsubst tests/unit/%.c,$(O)/cross/%,$(wildcard tests/unit/test_kern_*.c) tests/unit/test_quant_fit.c)
CROSS_OBJ   := $(patsubst %.c,$(O)/%.o,$(filter lib/err.c lib/cpu_%.c lib/quant/%.c lib/kern/%.c,$(LIB_SRC)))
$(CROSS_UNITS): $(O)/cross/%: $(O)/tests/unit/%.o $(CROSS_OBJ) $(patsubst %.c,$(O)/%.o,$(wildcard tests/cross/*_$(ARCH).c))
	@mkdir -p $(@D)
	$(CC) $(CROSS_LDFLAGS) -static -o $@ $^ -lm
cross: $(CROSS_UNITS)

# Preloaded by tests/cli/torture.bats.
$(O)/shim.so: tests/tools/shim.c
	@mkdir -p $(@D)
	$(CC) $(WARN) $(OPT) -D_GNU_SOURCE -fPIC -shared -o $@ $<

units: $(UNITS)
check: all units $(O)/shim.so
	O=$(O) BINDIR=$(BINDIR) scripts/run-tests
unit: units
	O=$(O) BINDIR=$(BINDIR) scripts/run-tests unit
cli: all $(O)/shim.so
	O=$(O) BINDIR=$(BINDIR) scripts/run-tests cli
gates: all
	O=$(O) BINDIR=$(BINDIR) scripts/run-gates
lint:
	scripts/lint
# Every fuzz target for FUZZ_SECONDS, instrumented, under sanitizers; a finding is a file in build-fuzz and fails the target.
FUZZ_SECONDS ?= 60
fuzzers: $(FUZZERS)
fuzz:
	$(MAKE) CC=clang SAN=address,undefined,fuzzer-no-link O=build-fuzz fuzzers
	scripts/run-fuzz build-fuzz $(FUZZ_SECONDS)

# Manual pages and completion come from the tools themselves.
SCRIPT_VERBS := $(sort $(shell awk -F '\t' '!/^\#/ && $$2 !~ /^apr-/ { print $$2 }' bin/verbs))
man: all
	scripts/gen-man $(BINDIR) $(O)/man
$(O)/completion: $(EXES) scripts/gen-completion bin/verbs
	scripts/gen-completion $(BINDIR) > $@.tmp && mv $@.tmp $@

install: all man $(O)/completion
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/apr $(DESTDIR)$(PREFIX)/share/man/man1 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 bin/apr $(DESTDIR)$(PREFIX)/bin/apr
	install -m 755 $(EXES) $(wildcard $(BINDIR)/apr-cuda.so) $(SCRIPT_VERBS:%=scripts/%) $(DESTDIR)$(PREFIX)/libexec/apr
	install -m 644 bin/verbs $(DESTDIR)$(PREFIX)/libexec/apr/verbs
	install -m 644 $(O)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(O)/completion $(DESTDIR)$(PREFIX)/share/bash-completion/completions/apr
uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/libexec/apr
	rm -f $(DESTDIR)$(PREFIX)/bin/apr $(DESTDIR)$(PREFIX)/share/man/man1/apr.1 \
	    $(DESTDIR)$(PREFIX)/share/man/man1/apr-*.1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/apr
clean:
	rm -rf build build-* bin/apr-*

.PHONY: all cuda gen bench cross units check unit cli gates lint fuzz fuzzers man install uninstall clean FORCE
.SECONDARY:
-include $(shell find $(O) -name '*.d' 2>/dev/null)
