"""Any encoder or API measured on your searches, next to a model of gcl: same searches, intervals, p values."""

import zlib

import shop

import gcl


class BagOfWords:
    """Stands for an API: two methods, each from a list of dicts to one vector per dict. Images come as bytes."""

    def embed_queries(self, queries):
        return [self.vector(query["query"]) for query in queries]

    def embed_documents(self, documents):
        return [self.vector(document.get("title", "")) for document in documents]

    def vector(self, text):
        vector = [0.001] + [0.0] * 255
        for word in text.lower().replace(",", "").split():
            vector[1 + zlib.crc32(word.encode()) % 255] += 1.0
        return vector


products = shop.products()
queries, qrels = shop.judged(products)
found = gcl.evaluate(
    {"tiny, untrained": "tiny", "words": BagOfWords()}, products=products, queries=queries, qrels=qrels
)
print(found)
print(found.metrics["words"])
print(found.save("outputs/any_encoder"))
