from service.text.block import Block


def read_markdown(text):
    yield Block(None, str)
