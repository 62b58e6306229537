"""The loss in a training loop of your own: nothing of gcl but one module, and any model that gives vectors."""

import torch

import gcl
from gcl.loss.weight import linear

torch.manual_seed(0)
queries, documents = 40, 200
query_model, document_model = torch.nn.Embedding(queries, 16), torch.nn.Embedding(documents, 16)
loss = gcl.GCLLoss(form="softmax", score_to_weight=linear)  # a score of 100 counts 1, a score of 1 counts 0.01
parameters = [*query_model.parameters(), *document_model.parameters(), *loss.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=0.05)

for step in range(60):
    document = torch.randint(documents, (64,))
    query = document % queries  # five documents answer each query,
    score = 100.0 - 20 * (document // queries)  # the first of them best
    output = loss(
        torch.nn.functional.normalize(query_model(query), dim=-1),
        torch.nn.functional.normalize(document_model(document), dim=-1),
        score=score,
        query_id=query,
        document_id=document,
    )
    optimizer.zero_grad()
    output.loss.backward()
    optimizer.step()
    if step % 20 == 0 or step == 59:
        print(f"step {step}: loss {output.loss.item():.3f}, scale {output.scale.item():.1f}")
