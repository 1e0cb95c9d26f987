# Objects of tools (and of tests/unit) that a unit test links besides the library.
forward_parts := forward step head cache_blocks attention_block mla_block moe_block rope attention attention_tile linear strips weights bind cache describe devices offload guard gpu_fault
infer_obj = $(patsubst %,$(O)/tools/apr-infer/%.o,$(1))
sampler_obj = $(patsubst tools/%.c,$(O)/tools/%.o,$(wildcard tools/apr-infer/sampler/*.c))
UNIT_OBJ_test_cache    := $(call infer_obj,cache cache_blocks)
UNIT_OBJ_test_sample   := $(sampler_obj)
UNIT_OBJ_test_grammar_schema := $(sampler_obj)
UNIT_OBJ_test_sampler  := $(sampler_obj)
UNIT_OBJ_test_sampler_draws := $(sampler_obj)
UNIT_OBJ_test_sampler_device := $(sampler_obj)
UNIT_OBJ_test_forward  := $(call infer_obj,$(forward_parts)) $(O)/tests/unit/ref_forward.o $(O)/tests/unit/toy.o
UNIT_OBJ_test_judge    := $(sampler_obj)
infer_all := $(foreach o,$(call tool_obj,apr-infer),$(if $(findstring /verb_,$(o))$(filter %/main.o,$(o)),,$(o)))
UNIT_OBJ_test_speculate := $(infer_all)
UNIT_OBJ_test_draft    := $(infer_all)
UNIT_OBJ_test_step     := $(call infer_obj,$(forward_parts) prefixes) $(O)/tests/unit/toy.o
UNIT_OBJ_test_attention := $(call infer_obj,attention attention_tile cache cache_blocks)
UNIT_OBJ_test_rope     := $(call infer_obj,rope)
UNIT_OBJ_test_context  := $(call infer_obj,prompt_cache model_id shift $(forward_parts))
UNIT_OBJ_test_linear   := $(call infer_obj,linear strips)
UNIT_OBJ_test_reply    := $(call infer_obj,reply) $(sampler_obj)
UNIT_OBJ_test_shard   := $(call infer_obj,devices)
UNIT_OBJ_test_crew     := $(call infer_obj,crew logprobs reply) $(sampler_obj)
UNIT_OBJ_test_logprobs := $(call infer_obj,logprobs)
UNIT_OBJ_test_chat     := $(call infer_obj,chat chat_format)
UNIT_OBJ_test_chat_forge := $(UNIT_OBJ_test_chat)
UNIT_OBJ_test_merge    := $(patsubst %,$(O)/tools/apr-import/%.o,merge merge_check merge_methods merge_linear \
                            merge_task merge_slerp merge_ties merge_dare)
UNIT_OBJ_test_pull_names := $(patsubst %,$(O)/tools/apr-pull/%.o,names select source http_parts)
UNIT_OBJ_test_tok_keys := $(O)/tools/apr-export/tok_keys.o
UNIT_OBJ_test_fixtures := $(UNIT_OBJ_test_forward)
UNIT_OBJ_test_audio    := $(call infer_obj,audio_wav audio_resample audio_mel)
UNIT_OBJ_test_asr      := $(call infer_obj,asr asr_rules asr_text) $(sampler_obj)
UNIT_OBJ_test_asr_tokens := $(UNIT_OBJ_test_asr)

UNIT_OBJ_test_strips := $(call infer_obj,strips)

$(foreach v,$(filter UNIT_OBJ_%,$(.VARIABLES)),$(eval $(O)/unit/$(v:UNIT_OBJ_%=%): $($(v))))
$(O)/unit/test_pull_names: LIBS += -lcurl

UNIT_OBJ_test_measure := $(call infer_obj,ranges series)
$(O)/unit/test_measure: $(UNIT_OBJ_test_measure)

UNIT_OBJ_test_guard := $(call infer_obj,guard)
$(O)/unit/test_guard: $(UNIT_OBJ_test_guard)
UNIT_OBJ_test_describe := $(call infer_obj,$(forward_parts)) $(O)/tests/unit/ref_describe.o $(O)/tests/unit/toy.o
$(O)/unit/test_describe: $(UNIT_OBJ_test_describe)
