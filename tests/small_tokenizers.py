"""Small byte-level tokenizers that split a protocol's tags in different ways."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TURNS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
TAGS = ["<code>", "</code>", "<interpreter>", "</interpreter>"]
TAGS += ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "```python", "```output"]
CORPUS = [
    "We compute.\n<code>\nprint(2+2)\n</code>\n<interpreter>\n4\n</interpreter>\nSo \\boxed{4}. <think>\n</think>\n",
    '<tool_call>\n{"name": "python", "arguments": {"code": "print(2+2)"}}\n</tool_call>\n',
    "<tool_response>\n4\n</tool_response>\n```python\nprint(2+2)\n```\n```output\n4\n```\n … tokens omitted …\n",
] * 20

# Hermes, as Qwen2.5 writes it, in short.
HERMES = r"""
{%- if tools %}{{ '<|im_start|>system\nTools:' }}
{%- for tool in tools %}{{ '\n' ~ (tool | tojson) }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- if messages[loop.index0 - 1].role != "tool" %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\n<tool_response>\n' ~ message.content ~ '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{ '<|im_end|>\n' }}{% endif %}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\n<tool_call>\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
            {{- (call.function.arguments | tojson) ~ '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def train(special: list[str], added: list[str] = (), size: int = 600, regex: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=HERMES, name_or_path="small"
    )


TOKENIZERS = {
    # every tag is one special token
    "special": train(TURNS + TAGS),
    # tags are text that merges with what stands around them (`>\n`, `</`, `code>`); some control tokens overlap
    "merging": train(TURNS, added=["<think>", "</think>", "ab<|", "|>cd"]),
    # one byte, one token
    "bytes": train(TURNS, size=259),
    # like Qwen: the tags of tool calls are added tokens that are not special
    "added": train(TURNS, added=["<tool_call>", "</tool_call>", "<think>"], regex=True),
}
