"""How much a picture and a title count: set when a model is loaded, measured, and changed for a single search.

For a run, gcl sweep-weights finds the best weights on half of the searches and reports them on the others.
"""

import shop

import gcl

products = shop.products()
queries, qrels = shop.judged(products)


def weighted(image):
    fields = {"title": {"weight": 1 - image}, "image": {"modality": "image", "weight": image}}
    return gcl.load("tiny", document=fields)  # in practice gcl.load("outputs/…", document=…)


models = {f"image {share:.0%}": weighted(share) for share in (0.1, 0.5, 0.9)}
found = gcl.evaluate(models, products=products, queries=queries, qrels=qrels)
print(found)

index = models["image 50%"].index(products, id="product_id")
for weights in (None, {"image": 0.0}, {"image": 5.0}):
    print(weights, index.search("red boots", k=3, weights=weights).ids)
