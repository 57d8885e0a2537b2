import os
import numpy as np, pytest, time
from embrief import Embedder, Reranker
from tests_gguf import write_embedder, write_reranker
TEXTS=["a","", "hello world", " x "*50, "<|im_end|> yes", "word "*300]
@pytest.fixture(autouse=True)
def lib(monkeypatch):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", os.path.expanduser("~/.cache/embrief/llama/0.3.36-linux-x86_64/lib"))
    monkeypatch.syspath_prepend("/tmp/ggufw/py")
def cos(a,b):
    a,b=a.vectors,b.vectors
    return (a*b).sum(-1)/np.linalg.norm(a,axis=-1)/np.linalg.norm(b,axis=-1)
@pytest.mark.parametrize("kind",["qwen3_folder","gemma_folder"])
def test_embed(request,kind,tmp_path):
    folder=request.getfixturevalue(kind)
    f=write_embedder(folder,tmp_path/"m.gguf")
    s=time.time(); e=Embedder(str(f)); v=e.encode(TEXTS,role="document"); print("t",time.time()-s); print(e.info())
    r=Embedder(str(folder),dtype="float32").encode(TEXTS,role="document")
    print(cos(v,r))
    assert cos(v,r).min()>0.9999
def test_rerank(reranker_folder,tmp_path):
    for head in (True,False):
        f=write_reranker(reranker_folder,tmp_path/f"r{head}.gguf",head=head)
        a=Reranker(str(f)).score("q",TEXTS,instruction="other one"); b=Reranker(str(reranker_folder),dtype="float32").score("q",TEXTS,instruction="other one")
        print(a,b); assert np.abs(a-b).max()<1e-3
